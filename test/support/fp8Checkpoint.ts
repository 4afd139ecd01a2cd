/**
 * One small model that Minke writes to the last bit alike everywhere, in f32 and in FP8: the files from which
 * transformers computed test/golden/b01-fp8-written.
 *
 * Its weights are functions of a seed, by the product's own generator (sums and products in a fixed order) and by
 * whole numbers: no logarithm or cosine of an engine, no kernel that sums in an order of its own, nothing trained.
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { convertCheckpoint, writeModel } from "../../src/checkpoint/index.ts";
import {
  type ModelConfig,
  ParameterFactory,
  type PrecisionName,
  precisions,
  Transformer,
} from "../../src/model/index.ts";
import type { QueueDevice } from "../../src/tensor/index.ts";
import { makeOracleDevice } from "./gradient.ts";
import { makeRandom } from "./random.ts";
import { tinyConfig } from "./tinyModel.ts";

/**
 * Blocks that are short at the right (gate and up: 144 columns), below (down: 144 rows), on both sides (kv_a: 134 by
 * 144), and nothing but short (q_a: 72 rows). Gate and up are whole blocks high: there an FP8 run multiplies the codes
 * of the file (docs/checkpoints.md).
 */
function fp8CheckpointConfig(): ModelConfig {
  return tinyConfig({
    ...{ vocabSize: 96, hiddenSize: 144, intermediateSize: 256, moeIntermediateSize: 128 },
    ...{ qLoraRank: 72, kvLoraRank: 130, nRoutedExperts: 4, nGroup: 1, topkGroup: 1 },
    ...{ numAttentionHeads: 12, vHeadDim: 12 },
    // About 1 / sqrt(hiddenSize): what goes from layer to layer is of order 1, and routers do not hesitate.
    initializerRange: 0.08,
  });
}

export async function makeFp8CheckpointModel(
  device: QueueDevice,
  precision: PrecisionName = "f32",
): Promise<ParameterFactory> {
  const config = fp8CheckpointConfig();
  const factory = new ParameterFactory(device, config, {
    precision: precisions[precision],
    isTrained: false,
  });
  new Transformer(config, factory);
  factory.initialize(201);
  const random = makeRandom(201);
  const spread = (length: number, from: number, width: number): number[] =>
    Array.from({ length }, () => from + width * random());
  // Gains of 1 and biases of 0 would hide whether they are read at all.
  for (const { master } of factory.parameters.filter(({ shape }) => shape.length === 1))
    master.write(spread(master.size, 0.5, 1));
  for (const { value } of factory.buffers) value.write(spread(value.size, -0.1, 0.2));
  // Embeddings of order 1, which what layers add does not outweigh.
  await plant(factory, "model.embedTokens.weight", (weights) => {
    for (let i = 0; i < weights.length; i++) weights[i]! *= 8;
  });
  await plant(factory, "model.layers.0.mlp.downProj.weight", (weights) => {
    for (let row = 0; row < 128; row++) weights.fill(0, row * 256, row * 256 + 128); // the first block
  });
  await plant(factory, "model.layers.1.mlp.experts.downProj", (weights) => {
    weights[3 * 128 + 5] = 3;
  });
  for (const parameter of factory.parameters) parameter.repack();
  return factory;
}

async function plant(
  { parameters }: ParameterFactory,
  path: string,
  change: (weights: Float64Array) => void,
): Promise<void> {
  const { master } = parameters.find((parameter) => parameter.path === path)!;
  const weights = Float64Array.from(await master.read());
  change(weights);
  master.write(weights);
}

/** Writes the model into `folder`/f32, and from there into `folder`/fp8 as `minke convert --dtype fp8` does. */
export async function writeFp8Checkpoint(folder: string): Promise<{ f32: string; fp8: string }> {
  const device = makeOracleDevice();
  const [f32, fp8] = [join(folder, "f32"), join(folder, "fp8")];
  await mkdir(f32, { recursive: true });
  await writeModel(f32, await makeFp8CheckpointModel(device));
  await convertCheckpoint(f32, fp8, { format: "fp8" });
  await device.dispose();
  return { f32, fp8 };
}
