/** Models small enough to run whole in plain TypeScript, with every part that DeepSeek-V3 has. */
import { createHash } from "node:crypto";
import {
  type ModelConfig,
  makeRopeTable,
  ParameterFactory,
  type Precision,
  type PrecisionName,
  precisions,
  presetConfig,
  Transformer,
} from "../../src/model/index.ts";
import type { QueueDevice, RopeTable, Tensor } from "../../src/tensor/index.ts";

/** `unit`, shrunken: one dense layer, one of eight experts, one MTP module; no two widths are equal by accident. */
export function tinyConfig(changes: Partial<ModelConfig> = {}): ModelConfig {
  return {
    ...presetConfig("unit"),
    vocabSize: 48,
    hiddenSize: 16,
    qkNopeHeadDim: 8,
    qkRopeHeadDim: 4,
    vHeadDim: 6,
    qLoraRank: 12,
    kvLoraRank: 10,
    moeIntermediateSize: 7,
    intermediateSize: 24,
    ...changes,
  };
}

export interface TinyModel {
  readonly device: QueueDevice;
  readonly config: ModelConfig;
  readonly precision: Precision;
  readonly factory: ParameterFactory;
  readonly model: Transformer;
  readonly rope: RopeTable;
}

export interface TinyOptions {
  readonly precision?: PrecisionName;
  readonly isTrained?: boolean;
  /** Null leaves the weights as garbage, for a reader to fill. */
  readonly seed?: number | null;
}

export function makeTinyModel(
  device: QueueDevice,
  config: ModelConfig = tinyConfig(),
  { precision: name = "f32", isTrained = false, seed = 1 }: TinyOptions = {},
): TinyModel {
  const precision = precisions[name];
  const factory = new ParameterFactory(device, config, { precision, isTrained });
  const model = new Transformer(config, factory);
  if (seed !== null) {
    factory.initialize(seed);
    // A bias of zeros would hide whether it is used at all.
    for (const { value } of factory.buffers)
      value.write(Array.from({ length: value.size }, (_, e) => 0.02 * (e % 3)));
  }
  const rope = makeRopeTable(device, config, config.maxPositionEmbeddings, name === "f64" ? "f64" : "f32");
  return { device, config, precision, factory, model, rope };
}

/**
 * Every weight and router bias by its path, bit for bit, as hashes: the difference of two arrays of thousands would
 * be printed for minutes.
 */
export async function snapshot(factory: ParameterFactory): Promise<Map<string, string>> {
  const named: readonly (readonly [string, Tensor])[] = [
    ...factory.parameters.map(({ path, master }) => [path, master] as const),
    ...factory.buffers.map(({ path, value }) => [path, value] as const),
  ];
  const hashes = await Promise.all(named.map(([, tensor]) => hashOf(tensor)));
  return new Map(named.map(([path], i) => [path, hashes[i]!]));
}

/** sha256 of a tensor's bytes, in hex. */
export async function hashOf(tensor: Tensor): Promise<string> {
  return createHash("sha256")
    .update(await tensor.readBytes())
    .digest("hex");
}
