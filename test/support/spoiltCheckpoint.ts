/** Spoils checkpoints in the ways in which they come spoilt: cut off, one bit turned, tensors missing or changed. */
import { createHash } from "node:crypto";
import { readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { SafetensorsFile, type TensorToWrite, writeSafetensors } from "../../src/checkpoint/index.ts";

export async function cutOff(file: string): Promise<void> {
  const { length } = await readFile(file);
  await truncate(file, Math.floor(length * 0.6));
}

/** Turns one bit of the data, near the end: the header stays sound. */
export async function flipBit(file: string): Promise<void> {
  const bytes = await readFile(file);
  bytes[bytes.length - 100]! ^= 0x10;
  await writeFile(file, bytes);
}

export interface DiskContent {
  shape: number[];
  readonly dtype: TensorToWrite["dtype"];
  bytes: Uint8Array;
}

/** Every tensor of a safetensors file with its raw bytes. */
export async function readTensors(file: string): Promise<Map<string, DiskContent>> {
  const opened = await SafetensorsFile.open(file);
  const tensors = new Map<string, DiskContent>();
  for (const entry of opened.tensors.values()) {
    const { name, dtype, shape } = entry;
    tensors.set(name, { dtype, shape: [...shape], bytes: await opened.read(entry) });
  }
  await opened.close();
  return tensors;
}

export async function writeTensors(file: string, tensors: ReadonlyMap<string, DiskContent>): Promise<void> {
  const list = [...tensors].map(
    ([name, { dtype, shape, bytes }]): TensorToWrite => ({
      ...{ name, dtype, shape },
      bytes: async () => bytes.slice(),
    }),
  );
  await writeSafetensors(file, list);
}

/** Rewrites a safetensors file after a change to its tensors, as another program would have written it. */
export async function changeTensors(
  file: string,
  change: (tensors: Map<string, DiskContent>) => void,
): Promise<void> {
  const tensors = await readTensors(file);
  change(tensors);
  await rm(file);
  await writeTensors(file, tensors);
}

/** Makes the first number of an f32 tensor NaN. */
export function poison(tensors: Map<string, DiskContent>, name: string): void {
  const { bytes } = tensors.get(name)!;
  new DataView(bytes.buffer, bytes.byteOffset).setFloat32(0, Number.NaN, true);
}

/** Writes the hashes anew: now the checkpoint says of itself that it is whole. */
export async function sealAgain(checkpoint: string): Promise<void> {
  const path = join(checkpoint, "manifest.json");
  const manifest = JSON.parse(await readFile(path, "utf8")) as Record<string, unknown>;
  const files: Record<string, { bytes: number; sha256: string }> = {};
  for (const name of (await readdir(checkpoint)).filter((other) => other !== "manifest.json")) {
    const bytes = await readFile(join(checkpoint, name));
    files[name] = { bytes: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") };
  }
  await writeFile(path, JSON.stringify({ ...manifest, files }));
}
