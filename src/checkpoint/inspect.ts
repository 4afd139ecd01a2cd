/** What `minke inspect` tells about a checkpoint, read from its files alone. */
import { readdir } from "node:fs/promises";
import { basename } from "node:path";
import { countParameters, type ModelConfig, type ParameterCounts } from "../model/index.ts";
import { sizeOf } from "../tensor/index.ts";
import { verifyCheckpoint } from "./manifest.ts";
import { readModelConfig } from "./model.ts";
import type { TensorEntry } from "./safetensors.ts";
import { WeightFiles } from "./weightFiles.ts";

export interface InspectedTensor {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: number;
  readonly file: string;
}

/** What is stored in one dtype. */
export interface DtypeShare {
  readonly dtype: string;
  readonly tensors: number;
  readonly numbers: number;
  readonly bytes: number;
}

export interface Inspection {
  readonly path: string;
  readonly config: ModelConfig;
  readonly parameters: ParameterCounts;
  readonly tensors: readonly InspectedTensor[];
  /** The weights by dtype, most numbers first; scales of FP8 weights are apart, in `scales`. */
  readonly dtypes: readonly DtypeShare[];
  readonly scales: DtypeShare | null;
  readonly bytes: number;
  /** Null where the checkpoint carries no hashes. */
  readonly isWhole: boolean | null;
  readonly damage: string | null;
}

/**
 * @throws {CheckpointError} if there is no config.json, a file of weights is missing or not sound, or FP8 weights and
 *                           scales do not belong together
 */
export async function inspectCheckpoint(path: string): Promise<Inspection> {
  const config = await readModelConfig(path);
  const opened = await WeightFiles.open(path);
  const tensors = opened.files.flatMap((file) =>
    [...file.tensors.values()].map((entry) => inspected(entry, basename(file.path))),
  );
  await opened.close();
  const isWeight = ({ name }: InspectedTensor): boolean => opened.weights.has(name);
  const scales = tensors.filter((tensor) => !isWeight(tensor));
  const hasHashes = (await readdir(path)).includes("manifest.json");
  const { reason } = hasHashes ? await verifyCheckpoint(path) : { reason: null };
  return {
    path,
    config,
    parameters: countParameters(config),
    tensors,
    dtypes: shares(tensors.filter(isWeight)),
    scales: scales.length === 0 ? null : share(scales),
    bytes: tensors.reduce((sum, tensor) => sum + tensor.bytes, 0),
    isWhole: hasHashes ? reason === null : null,
    damage: reason,
  };
}

function inspected({ name, dtype, shape, begin, end }: TensorEntry, file: string): InspectedTensor {
  return { name, dtype, shape, bytes: end - begin, file };
}

function shares(tensors: readonly InspectedTensor[]): readonly DtypeShare[] {
  const dtypes = [...new Set(tensors.map(({ dtype }) => dtype))];
  return dtypes
    .map((wanted) => share(tensors.filter(({ dtype }) => dtype === wanted)))
    .sort((a, b) => b.numbers - a.numbers);
}

function share(tensors: readonly InspectedTensor[]): DtypeShare {
  const sum = (of: (tensor: InspectedTensor) => number): number =>
    tensors.reduce((total, tensor) => total + of(tensor), 0);
  return {
    dtype: tensors[0]!.dtype,
    tensors: tensors.length,
    numbers: sum(({ shape }) => sizeOf(shape)),
    bytes: sum(({ bytes }) => bytes),
  };
}
