/** Models small enough to run whole in plain TypeScript, with every part that DeepSeek-V3 has. */
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

/** Every weight and router bias by its path, bit for bit. */
export async function snapshot(factory: ParameterFactory): Promise<Map<string, Uint8Array>> {
  const named: readonly (readonly [string, Tensor])[] = [
    ...factory.parameters.map(({ path, master }) => [path, master] as const),
    ...factory.buffers.map(({ path, value }) => [path, value] as const),
  ];
  const bytes = await Promise.all(named.map(([, tensor]) => tensor.readBytes()));
  return new Map(named.map(([path], i) => [path, bytes[i]!]));
}
