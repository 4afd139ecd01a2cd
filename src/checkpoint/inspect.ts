/** What `minke inspect` tells about a checkpoint, read from its files alone. */
import { readdir } from "node:fs/promises";
import { basename } from "node:path";
import { countParameters, type ModelConfig, type ParameterCounts } from "../model/index.ts";
import { verifyCheckpoint } from "./manifest.ts";
import { openWeights, readModelConfig } from "./model.ts";

export interface InspectedTensor {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: number;
  readonly file: string;
}

export interface Inspection {
  readonly path: string;
  readonly config: ModelConfig;
  readonly parameters: ParameterCounts;
  readonly tensors: readonly InspectedTensor[];
  readonly bytes: number;
  /** Null where the checkpoint carries no hashes. */
  readonly isWhole: boolean | null;
  readonly damage: string | null;
}

/** @throws {CheckpointError} if there is no config.json, or a file of weights is missing or not sound */
export async function inspectCheckpoint(path: string): Promise<Inspection> {
  const config = await readModelConfig(path);
  const tensors: InspectedTensor[] = [];
  for (const opened of await openWeights(path)) {
    const file = basename(opened.path);
    for (const { name, dtype, shape, begin, end } of opened.tensors.values()) {
      tensors.push({ name, dtype, shape, bytes: end - begin, file });
    }
    await opened.close();
  }
  const hasHashes = (await readdir(path)).includes("manifest.json");
  const { reason } = hasHashes ? await verifyCheckpoint(path) : { reason: null };
  return {
    path,
    config,
    parameters: countParameters(config),
    tensors,
    bytes: tensors.reduce((sum, tensor) => sum + tensor.bytes, 0),
    isWhole: hasHashes ? reason === null : null,
    damage: reason,
  };
}
