/**
 * Token rows on disk: a header, then rows of one width, read one at a time by position.
 *
 * 16-bit ids where the vocabulary allows it. The payload's sha256 is in the header: a shard that was truncated or
 * altered is named when it is opened, not when a row of it has spoilt a run.
 */
import { createHash } from "node:crypto";
import { readSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { DataError, invariant } from "../../base/index.ts";
import { writeFileAtomic } from "../../run/index.ts";

const MAGIC = "MINKEROW";
const VERSION = 1;
const HEADER_BYTES = 64;
/** Stands for -1 (padding) in a shard of 16-bit ids. */
const PAD_16 = 0xffff;

export async function writeShard(
  path: string,
  rows: Int32Array,
  rowWidth: number,
  vocabSize: number,
): Promise<void> {
  const width = vocabSize < PAD_16 ? 2 : 4;
  const payload =
    width === 2
      ? new Uint8Array(Uint16Array.from(rows, (id) => (id < 0 ? PAD_16 : id)).buffer)
      : new Uint8Array(rows.buffer, rows.byteOffset, rows.byteLength);
  const file = new Uint8Array(HEADER_BYTES + payload.length);
  file.set(new TextEncoder().encode(MAGIC));
  const view = new DataView(file.buffer);
  view.setUint32(8, VERSION, true);
  view.setUint32(12, width, true);
  view.setUint32(16, rowWidth, true);
  view.setUint32(20, rows.length / rowWidth, true);
  file.set(createHash("sha256").update(payload).digest(), 32);
  file.set(payload, HEADER_BYTES);
  await writeFileAtomic(path, file);
}

export class Shard {
  readonly path: string;
  readonly rowWidth: number;
  readonly count: number;
  /** sha256 of the rows, in hexadecimal: equal where the rows are. */
  readonly digest: string;
  readonly #file: FileHandle;
  readonly #idBytes: number;

  private constructor(path: string, file: FileHandle, view: DataView) {
    this.path = path;
    this.#file = file;
    this.#idBytes = view.getUint32(12, true);
    this.rowWidth = view.getUint32(16, true);
    this.count = view.getUint32(20, true);
    this.digest = Buffer.from(view.buffer, view.byteOffset + 32, 32).toString("hex");
  }

  /** @throws {DataError} if the file is no shard, of another version, truncated or altered */
  static async open(path: string): Promise<Shard> {
    const file = await open(path, "r").catch((cause: unknown) => {
      throw damaged(path, "cannot be opened", cause instanceof Error ? cause.message : String(cause));
    });
    try {
      const header = new Uint8Array(HEADER_BYTES);
      const { bytesRead } = await file.read(header, 0, HEADER_BYTES, 0);
      const magic = new TextDecoder().decode(header.subarray(0, 8));
      const view = new DataView(header.buffer);
      if (bytesRead < HEADER_BYTES || magic !== MAGIC)
        throw damaged(path, "is no token shard", "it does not begin as one");
      const version = view.getUint32(8, true);
      if (version !== VERSION)
        throw damaged(path, `has version ${version}`, `this program reads version ${VERSION}`);
      const shard = new Shard(path, file, view);
      await shard.#verify(header.subarray(32, 64));
      return shard;
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /**
   * Rows by their numbers, one behind another.
   *
   * Read at once: a row is a few hundred bytes of a file that was just hashed, so its pages are at hand, and sending a
   * thread for each costs the event loop 20 times as much as reading.
   */
  read(rows: readonly number[]): Int32Array {
    const result = new Int32Array(rows.length * this.rowWidth);
    const bytes = new Uint8Array(this.rowWidth * this.#idBytes);
    for (const [i, row] of rows.entries()) {
      invariant(
        Number.isInteger(row) && row >= 0 && row < this.count,
        `a shard of ${this.count} rows has row ${row}`,
      );
      const bytesRead = readSync(this.#file.fd, bytes, 0, bytes.length, HEADER_BYTES + row * bytes.length);
      if (bytesRead !== bytes.length)
        throw damaged(this.path, `ends inside row ${row}`, "it was cut off while the run went on");
      const ids = this.#idBytes === 2 ? new Uint16Array(bytes.buffer) : new Int32Array(bytes.buffer);
      const target = result.subarray(i * this.rowWidth, (i + 1) * this.rowWidth);
      for (let k = 0; k < target.length; k++)
        target[k] = ids[k] === PAD_16 && this.#idBytes === 2 ? -1 : ids[k]!;
    }
    return result;
  }

  close(): Promise<void> {
    return this.#file.close();
  }

  async #verify(wanted: Uint8Array): Promise<void> {
    const payload = this.count * this.rowWidth * this.#idBytes;
    const { size } = await this.#file.stat();
    if (size !== HEADER_BYTES + payload) {
      throw damaged(
        this.path,
        `has ${size} bytes, its header promises ${HEADER_BYTES + payload}`,
        "it was cut off or written over",
      );
    }
    const hash = createHash("sha256");
    const chunk = new Uint8Array(1 << 20);
    for (let at = 0; at < payload; ) {
      const { bytesRead } = await this.#file.read(
        chunk,
        0,
        Math.min(chunk.length, payload - at),
        HEADER_BYTES + at,
      );
      hash.update(chunk.subarray(0, bytesRead));
      at += bytesRead;
    }
    if (!hash.digest().equals(wanted))
      throw damaged(this.path, "is not what was written", "its sha256 differs");
  }
}

function damaged(path: string, what: string, why: string): DataError {
  return new DataError(`${path} ${what}`, {
    why,
    fix: "delete the run's data/ folder: the same command prepares it anew from the same documents",
    fields: { path },
  });
}
