/**
 * The safetensors format: an 8-byte little-endian header length, a JSON header, raw little-endian data.
 *
 * Read with suspicion: the file may be truncated, overlapping, or hostile. Tensors are read one at a time, so a
 * file larger than memory can be loaded.
 */
import { type FileHandle, open } from "node:fs/promises";
import { CheckpointError, invariant } from "../base/index.ts";
import { type Shape, sizeOf } from "../tensor/index.ts";

export type DiskDtype = "F64" | "F32" | "F16" | "BF16" | "F8_E4M3" | "F8_E8M0" | "I64" | "I32" | "U8";

const WIDTH: Readonly<Record<DiskDtype, number>> = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  F8_E4M3: 1,
  F8_E8M0: 1,
  I64: 8,
  I32: 4,
  U8: 1,
};

export interface TensorEntry {
  readonly name: string;
  readonly dtype: DiskDtype;
  readonly shape: Shape;
  /** Bytes from the start of the file. */
  readonly begin: number;
  readonly end: number;
}

/** Bytes of one call to the file system: Node takes no more than 2^31 - 1. */
const CALL_BYTES = 2 ** 30;

/** A header larger than this is no header: 671B parameters in 163 shards have 100 KB each. */
const LARGEST_HEADER = 100_000_000;

export function damaged(path: string, what: string, why: string): CheckpointError {
  return new CheckpointError(`${path}: ${what}`, {
    why,
    fix: "the file is damaged or no safetensors file: copy it again, or use an earlier checkpoint of the run",
    fields: { path },
  });
}

export class SafetensorsFile {
  readonly path: string;
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  readonly metadata: Readonly<Record<string, string>>;
  readonly #file: FileHandle;

  private constructor(path: string, file: FileHandle, header: Header) {
    this.path = path;
    this.tensors = header.tensors;
    this.metadata = header.metadata;
    this.#file = file;
  }

  /** @throws {CheckpointError} if the header is not sound or the file is too short for it */
  static async open(path: string): Promise<SafetensorsFile> {
    const file = await open(path, "r");
    try {
      return new SafetensorsFile(path, file, await readHeader(path, file));
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** Bytes of one tensor, or `length` of them from `start`. */
  async read(
    entry: TensorEntry,
    start: number = 0,
    length: number = entry.end - entry.begin,
  ): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    const done = await readAt(this.#file, bytes, entry.begin + start);
    if (done !== length) {
      throw damaged(
        this.path,
        `${entry.name} ends after ${done} of ${length} bytes`,
        "the file is shorter than its header says",
      );
    }
    return bytes;
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}

/** Fills `bytes` from `position` on; returns how many there were. One read call may give less than it was asked for. */
async function readAt(file: FileHandle, bytes: Uint8Array, position: number): Promise<number> {
  for (let done = 0; done < bytes.length; ) {
    const length = Math.min(bytes.length - done, CALL_BYTES);
    const { bytesRead } = await file.read(bytes, done, length, position + done);
    if (bytesRead === 0) return done;
    done += bytesRead;
  }
  return bytes.length;
}

interface Header {
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  readonly metadata: Readonly<Record<string, string>>;
}

async function readHeader(path: string, file: FileHandle): Promise<Header> {
  const { size } = await file.stat();
  const prefix = new Uint8Array(8);
  if ((await readAt(file, prefix, 0)) < 8)
    throw damaged(path, `has ${size} bytes`, "a safetensors file begins with the length of its header");
  const length = Number(new DataView(prefix.buffer).getBigUint64(0, true));
  if (length > LARGEST_HEADER || 8 + length > size) {
    throw damaged(
      path,
      `its header should have ${length} bytes, the file has ${size}`,
      "the header must fit the file",
    );
  }
  const bytes = new Uint8Array(length);
  await readAt(file, bytes, 8);
  const text = new TextDecoder().decode(bytes);
  const json = parseHeader(path, text);
  refuseDuplicates(path, text);
  return checkHeader(path, json, 8 + length, size);
}

function parseHeader(path: string, text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value))
      return value as Record<string, unknown>;
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause;
  }
  throw damaged(
    path,
    "its header is no JSON object",
    "the header names each tensor with dtype, shape and place",
  );
}

/** JSON.parse lets the last of two equal keys win; in a checkpoint that would hide a tensor. */
function refuseDuplicates(path: string, text: string): void {
  const seen = new Set<string>();
  for (const name of topLevelKeys(text)) {
    if (seen.has(name))
      throw damaged(path, `names ${name} twice`, "a reader could not know which of them is meant");
    seen.add(name);
  }
}

/** The keys of a JSON object, equal ones included; `text` is known to be JSON. */
function* topLevelKeys(text: string): Generator<string> {
  let depth = 0;
  let isKey = true;
  for (let at = 0; at < text.length; at++) {
    const symbol = text[at]!;
    if (symbol === '"') {
      const end = stringEnd(text, at);
      if (depth === 1 && isKey) yield JSON.parse(text.slice(at, end)) as string;
      at = end - 1;
    } else if (symbol === "{" || symbol === "[") depth++;
    else if (symbol === "}" || symbol === "]") depth--;
    else if (symbol === ":") isKey = false;
    else if (symbol === ",") isKey = true;
  }
}

/** Where the string that begins at `start` ends, its quote included. */
function stringEnd(text: string, start: number): number {
  let at = start + 1;
  while (text[at] !== '"') at += text[at] === "\\" ? 2 : 1;
  return at + 1;
}

function checkHeader(
  path: string,
  json: Record<string, unknown>,
  dataStart: number,
  fileSize: number,
): Header {
  const tensors = new Map<string, TensorEntry>();
  let metadata: Record<string, string> = {};
  for (const [name, value] of Object.entries(json)) {
    if (name === "__metadata__") metadata = checkMetadata(path, value);
    else tensors.set(name, checkEntry(path, name, value, dataStart));
  }
  // In order of place, each must begin where the one before ends: no holes, no overlaps, no tail.
  let end = dataStart;
  for (const entry of [...tensors.values()].sort((a, b) => a.begin - b.begin || a.end - b.end)) {
    if (entry.begin !== end) {
      throw damaged(
        path,
        `${entry.name} begins at ${entry.begin}, the one before ends at ${end}`,
        "tensors lie one behind another",
      );
    }
    end = entry.end;
  }
  if (end !== fileSize) {
    throw damaged(
      path,
      `holds ${fileSize} bytes where its header describes ${end}`,
      "every byte belongs to a tensor",
    );
  }
  return { tensors, metadata };
}

function checkMetadata(path: string, value: unknown): Record<string, string> {
  const isMap = typeof value === "object" && value !== null && !Array.isArray(value);
  if (isMap && Object.values(value).every((item) => typeof item === "string"))
    return value as Record<string, string>;
  throw damaged(path, "its __metadata__ is no map of strings", "the format allows nothing else there");
}

function checkEntry(path: string, name: string, value: unknown, dataStart: number): TensorEntry {
  const { dtype, shape, data_offsets: offsets } = (value ?? {}) as Record<string, unknown>;
  if (typeof dtype !== "string" || !Object.hasOwn(WIDTH, dtype)) {
    throw damaged(
      path,
      `${name} has dtype ${JSON.stringify(dtype)}`,
      `known dtypes are ${Object.keys(WIDTH).join(", ")}`,
    );
  }
  if (!isSizes(shape) || !isSizes(offsets) || offsets.length !== 2) {
    throw damaged(
      path,
      `${name} has no sound shape or place`,
      "shape and data_offsets are lists of whole numbers",
    );
  }
  const [begin, end] = offsets as [number, number];
  const bytes = sizeOf(shape) * WIDTH[dtype as DiskDtype];
  if (end - begin !== bytes) {
    throw damaged(
      path,
      `${name} takes ${end - begin} bytes, its shape needs ${bytes}`,
      "shape and place must agree",
    );
  }
  return { name, dtype: dtype as DiskDtype, shape, begin: dataStart + begin, end: dataStart + end };
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);
}

/**
 * A tensor to be written; its bytes, copies that the writer frees, are asked for when its turn comes: in one piece, or
 * piece by piece where the whole need not be in memory.
 */
export interface TensorToWrite {
  readonly name: string;
  readonly dtype: DiskDtype;
  readonly shape: Shape;
  bytes(): Promise<Uint8Array> | AsyncIterable<Uint8Array>;
}

export function bytesOf(tensor: Pick<TensorToWrite, "dtype" | "shape">): number {
  return sizeOf(tensor.shape) * WIDTH[tensor.dtype];
}

/** Writes a new file and brings it to the disk. */
export async function writeSafetensors(
  path: string,
  tensors: readonly TensorToWrite[],
  metadata: Readonly<Record<string, string>> = { format: "pt" },
): Promise<void> {
  let offset = 0;
  const entries: [string, unknown][] = [["__metadata__", metadata]];
  for (const tensor of tensors) {
    const end = offset + bytesOf(tensor);
    entries.push([tensor.name, { dtype: tensor.dtype, shape: tensor.shape, data_offsets: [offset, end] }]);
    offset = end;
  }
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(entries)));
  const padded = new Uint8Array(8 + Math.ceil(json.length / 8) * 8).fill(0x20);
  new DataView(padded.buffer).setBigUint64(0, BigInt(padded.length - 8), true);
  padded.set(json, 8);
  const file = await open(path, "wx");
  try {
    await writeAll(file, padded);
    for (const tensor of tensors) {
      const given = tensor.bytes();
      let written = 0;
      for await (const bytes of Symbol.asyncIterator in given ? given : [given]) {
        await writeAll(file, bytes);
        written += bytes.length;
        free(bytes);
      }
      invariant(written === bytesOf(tensor), `${tensor.name} gives the bytes that its shape needs`);
    }
    await file.sync();
  } finally {
    await file.close();
  }
}

/** V8 frees a buffer in its own time: by then a checkpoint has read 50 MB more than it needs at once. */
function free({ buffer, byteLength }: Uint8Array): void {
  // A view of a part may have neighbours that live on.
  if (buffer instanceof ArrayBuffer && buffer.byteLength === byteLength) buffer.transfer(0);
}

/** One write call may take less than it was given. */
async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, done, Math.min(bytes.length - done, CALL_BYTES));
    done += bytesWritten;
  }
}
