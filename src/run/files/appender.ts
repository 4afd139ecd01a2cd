/**
 * A file that only grows, written in the background: in order, never waiting, and never losing what was handed in.
 *
 * After a failure (a full disk) everything waits in memory until `flush` tries again. A piece that was written half is
 * written over from its beginning, so the file holds whole pieces in their order.
 */
import type { FileHandle } from "node:fs/promises";
import { RunError } from "../../base/index.ts";
import { explained, explainFileError } from "./fileErrors.ts";

/** The part of a file handle that is used; what a test puts a full disk in place of. */
export type AppendableFile = Pick<FileHandle, "write" | "datasync" | "close">;

export class Appender {
  readonly path: string;
  readonly #file: AppendableFile;
  readonly #doing: string;
  readonly #pending: Uint8Array[] = [];
  #position: number;
  #writing: Promise<void> | undefined;
  #failure: { readonly error: unknown } | undefined;
  #isClosed = false;

  /**
   * @param position  where the next piece goes: the size of the file
   * @param doing     what the file is for, as the middle of a sentence: `write events`
   */
  constructor(path: string, file: AppendableFile, position: number, doing: string) {
    this.path = path;
    this.#file = file;
    this.#position = position;
    this.#doing = doing;
  }

  /** Pieces that are not in the file yet. */
  get numPending(): number {
    return this.#pending.length;
  }

  /** What stopped the writing, until a `flush` gets through. */
  get failure(): unknown {
    return this.#failure?.error;
  }

  append(piece: Uint8Array): void {
    if (this.#isClosed) throw closedError(this.path);
    this.#pending.push(piece);
    if (this.#failure === undefined) this.#start();
  }

  /**
   * Resolves when all is on the disk.
   *
   * @throws {DiskError} if the disk is full; nothing is lost then, and a later flush tries again
   */
  async flush(): Promise<void> {
    await this.#writing;
    this.#failure = undefined;
    this.#start();
    await this.#writing;
    if (this.failure !== undefined) throw this.failure;
    await explained(this.path, this.#doing, () => this.#file.datasync());
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    try {
      await this.flush();
    } finally {
      await this.#file.close();
    }
  }

  #start(): void {
    this.#writing ??= this.#writePending()
      .catch((error: unknown) => {
        this.#failure = { error: explainFileError(error, this.path, this.#doing) };
      })
      .finally(() => {
        this.#writing = undefined;
      });
  }

  async #writePending(): Promise<void> {
    while (this.#pending.length > 0) {
      const numPieces = this.#pending.length;
      const bytes = Buffer.concat(this.#pending);
      let written = 0;
      while (written < bytes.length) {
        const rest = bytes.length - written;
        written += (await this.#file.write(bytes, written, rest, this.#position + written)).bytesWritten;
      }
      this.#position += bytes.length;
      this.#pending.splice(0, numPieces);
    }
  }
}

function closedError(path: string): RunError {
  return new RunError(`${path} is closed, and something was to be written after`, {
    why: "a file that is closed has been flushed and may be read by others",
    fix: "close it after the last event",
    fields: { path },
  });
}
