/**
 * The weights of a folder, whatever files and dtypes they lie in: found by name, and read as f32, some rows at a time.
 *
 * Which tensors are FP8 is told by their dtype, not by their names or by config.json, which some tools forget to change.
 * A model larger than memory can be read.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { CheckpointError } from "../base/index.ts";
import { errorCode } from "../run/index.ts";
import { dequantizeBlocks, sizeOf, TILE, tilesOf } from "../tensor/index.ts";
import { type Placed, pairScales, readScales, requireNumbers, type StoredWeight } from "./blockScales.ts";
import type { DiskTensor } from "./names.ts";
import { READABLE, widen } from "./numbers.ts";
import { damaged, SafetensorsFile, type TensorEntry } from "./safetensors.ts";

/** About as many numbers are in memory at once, and worked on between two looks at the event loop: some milliseconds. */
const BAND_NUMBERS = 2 ** 18;

/** Some rows of a tensor: `values` begin at its element `start`. */
export interface Band {
  readonly start: number;
  readonly values: Float32Array;
}

export class WeightFiles {
  readonly folder: string;
  /** By name, scales with the weights that they belong to. */
  readonly weights: ReadonlyMap<string, StoredWeight>;
  /** As they lie in the files, scales included. */
  readonly files: readonly SafetensorsFile[];

  private constructor(folder: string, files: readonly SafetensorsFile[]) {
    this.folder = folder;
    this.files = files;
    this.weights = pairScales(placedTensors(files));
  }

  /** @throws {CheckpointError} if a file is missing or not sound, or codes and scales do not belong together */
  static async open(folder: string): Promise<WeightFiles> {
    const files = await openShards(folder);
    try {
      return new WeightFiles(folder, files);
    } catch (error) {
      for (const file of files) await file.close();
      throw error;
    }
  }

  /**
   * The weight of each tensor that a model wants; copies that the files do without are left out.
   *
   * @throws {CheckpointError} if one is missing, unknown to the model, or of another shape or dtype than it can have
   */
  match(
    wanted: readonly DiskTensor[],
  ): readonly { readonly disk: DiskTensor; readonly weight: StoredWeight }[] {
    refuseUnknown(this.folder, this.weights.keys(), wanted);
    return wanted.flatMap((disk) => {
      const weight = this.weights.get(disk.name);
      if (weight === undefined && disk.isCopy) return [];
      if (weight === undefined) throw missing(this.folder, disk);
      checkEntry(this.folder, disk, weight);
      return [{ disk, weight }];
    });
  }

  /** Of all tensors. */
  get bytes(): number {
    const entries = this.files.flatMap((file) => [...file.tensors.values()]);
    return entries.reduce((sum, { begin, end }) => sum + end - begin, 0);
  }

  async close(): Promise<void> {
    for (const file of this.files) await file.close();
  }
}

/** A weight's bytes as they lie in its file, in bands. FP8 codes are checked: none of them is NaN. */
export async function* readCodes({
  file,
  entry,
  scale,
}: StoredWeight): AsyncGenerator<Uint8Array, void, undefined> {
  const [N, K] = matrixShape(entry);
  const width = (entry.end - entry.begin) / (N * K);
  for (const { from, to } of bandRows(N, K)) {
    const bytes = await file.read(entry, from * K * width, (to - from) * K * width);
    if (scale !== null) requireNumbers(entry, bytes, from * K);
    yield bytes;
  }
}

/** A weight's numbers, in order, as f32: FP8 codes times their scales. */
export async function* readBands(weight: StoredWeight): AsyncGenerator<Band, void, undefined> {
  const { entry, scale } = weight;
  const [, K] = matrixShape(entry);
  const scales = scale === null ? null : await readScales(scale);
  let row = 0;
  for await (const codes of readCodes(weight)) {
    if (scales === null) {
      const values = widen(codes, entry.dtype);
      yield { start: row * K, values };
      row += values.length / K;
      continue;
    }
    const rows = codes.length / K;
    const blocks = scales.subarray((row / TILE) * tilesOf(K), tilesOf(row + rows) * tilesOf(K));
    yield { start: row * K, values: dequantizeBlocks({ codes, scales: blocks }, rows, K) };
    row += rows;
  }
}

/** A vector is a matrix of one row. */
function matrixShape({ shape }: TensorEntry): readonly [number, number] {
  return shape.length === 2 ? [shape[0]!, shape[1]!] : [1, sizeOf(shape)];
}

/** Cuts the rows of an [N, K] matrix into bands of whole blocks. */
export function* bandRows(N: number, K: number): Generator<{ readonly from: number; readonly to: number }> {
  const height = TILE * Math.max(1, Math.floor(BAND_NUMBERS / (TILE * K)));
  for (let from = 0; from < N; from += height) yield { from, to: Math.min(from + height, N) };
}

function placedTensors(files: readonly SafetensorsFile[]): ReadonlyMap<string, Placed> {
  const placed = new Map<string, Placed>();
  for (const file of files) {
    for (const entry of file.tensors.values()) {
      const other = placed.get(entry.name)?.file.path;
      if (other !== undefined)
        throw damaged(file.path, `holds ${entry.name}, and so does ${other}`, "a tensor lies in one shard");
      placed.set(entry.name, { file, entry });
    }
  }
  return placed;
}

/** The files that the index names, or the single one. Names of shards are never parsed. */
async function openShards(folder: string): Promise<readonly SafetensorsFile[]> {
  const names = await shardNames(folder);
  const files: SafetensorsFile[] = [];
  try {
    for (const name of names) files.push(await SafetensorsFile.open(join(folder, name)));
  } catch (error) {
    for (const file of files) await file.close();
    if (errorCode(error) !== "ENOENT") throw error;
    throw new CheckpointError(`${folder} has no ${names[files.length]}`, {
      why:
        names.length === 1
          ? "weights lie in model.safetensors or in shards with an index"
          : "the index names this shard",
      fix: "copy the whole folder again",
      fields: { folder, missing: names[files.length] },
      cause: error,
    });
  }
  return files;
}

async function shardNames(folder: string): Promise<readonly string[]> {
  const path = join(folder, "model.safetensors.index.json");
  try {
    const { weight_map: map } = indexSchema.parse(JSON.parse(await readFile(path, "utf8")));
    return [...new Set(Object.values(map))];
  } catch (error) {
    if (errorCode(error) === "ENOENT") return ["model.safetensors"];
    if (error instanceof SyntaxError || error instanceof z.ZodError)
      throw damaged(path, "is no index of shards", "it maps each tensor's name to a file beside it");
    throw error;
  }
}

/** A shard is a file of the folder itself: a name that leads elsewhere is refused. */
const indexSchema: z.ZodType<{ readonly weight_map: Readonly<Record<string, string>> }> = z.object({
  weight_map: z.record(z.string(), z.string().regex(/^[^/\\]+$/)),
});

function refuseUnknown(folder: string, names: Iterable<string>, wanted: readonly DiskTensor[]): void {
  const known = new Set(wanted.map(({ name }) => name));
  // Old writers stored the rotary frequencies, which follow from the config.
  const unknown = [...names].filter((name) => !known.has(name) && !name.endsWith("rotary_emb.inv_freq"));
  if (unknown.length === 0) return;
  throw new CheckpointError(
    `${folder}: the model has no place for ${unknown.length} tensors, the first is ${unknown[0]}`,
    {
      why: "a weight that is left out in silence makes another model than the one that was trained",
      fix: "check num_hidden_layers, num_nextn_predict_layers and n_routed_experts in config.json",
      fields: { folder, unknown },
    },
  );
}

function missing(folder: string, disk: DiskTensor): CheckpointError {
  return new CheckpointError(`${folder} holds no ${disk.name}`, {
    why: `the model of its config.json has this tensor, of shape [${disk.shape.join(", ")}]`,
    fix: "use the config.json that was written with the weights",
    fields: { folder, key: disk.name },
  });
}

function checkEntry(folder: string, disk: DiskTensor, { entry, scale }: StoredWeight): void {
  if (scale === null && !READABLE.includes(entry.dtype)) {
    throw new CheckpointError(`${folder}: ${disk.name} is ${entry.dtype}`, {
      why: `weights are read from ${READABLE.join(", ")}, and from F8_E4M3 with scales`,
      fix: "convert the checkpoint to BF16 first",
      fields: { folder, key: disk.name, dtype: entry.dtype },
    });
  }
  if (entry.shape.length === disk.shape.length && entry.shape.every((dim, i) => dim === disk.shape[i]))
    return;
  throw new CheckpointError(
    `${disk.name} is [${entry.shape.join(", ")}], the model wants [${disk.shape.join(", ")}]`,
    {
      why: "weights and config.json describe different models",
      fix: "use the config.json that lies beside the weights",
      fields: { folder, key: disk.name, shape: entry.shape, wanted: disk.shape },
    },
  );
}
