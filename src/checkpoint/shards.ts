/** Writes a model's tensors: into one file, or into shards with an index where they are many. */
import { join } from "node:path";
import { writeFileAtomic } from "../run/index.ts";
import { bytesOf, type TensorToWrite, writeSafetensors } from "./safetensors.ts";

/** Largest file; a model beyond it is cut into shards with an index. */
export const SHARD_BYTES = 5e9;

export async function writeWeights(
  folder: string,
  tensors: readonly TensorToWrite[],
  shardBytes: number = SHARD_BYTES,
): Promise<void> {
  const shards = cutShards(tensors, shardBytes);
  if (shards.length === 1) await writeSafetensors(join(folder, "model.safetensors"), tensors);
  else await writeShards(folder, shards);
}

function cutShards(tensors: readonly TensorToWrite[], limit: number): readonly (readonly TensorToWrite[])[] {
  const shards: TensorToWrite[][] = [[]];
  let size = 0;
  for (const tensor of tensors) {
    if (size > 0 && size + bytesOf(tensor) > limit) {
      shards.push([]);
      size = 0;
    }
    shards.at(-1)?.push(tensor);
    size += bytesOf(tensor);
  }
  return shards;
}

async function writeShards(folder: string, shards: readonly (readonly TensorToWrite[])[]): Promise<void> {
  const digits = (n: number): string => String(n).padStart(5, "0");
  const weightMap: Record<string, string> = {};
  let total = 0;
  for (const [i, tensors] of shards.entries()) {
    const name = `model-${digits(i + 1)}-of-${digits(shards.length)}.safetensors`;
    await writeSafetensors(join(folder, name), tensors);
    for (const tensor of tensors) {
      weightMap[tensor.name] = name;
      total += bytesOf(tensor);
    }
  }
  const index = { metadata: { total_size: total }, weight_map: weightMap };
  await writeFileAtomic(join(folder, "model.safetensors.index.json"), `${JSON.stringify(index, null, 2)}\n`);
}
