/** Training in FP8 beside training in bf16: the same data, the same first weights, the same losses. */
import { describe, expect, test } from "vitest";
import { presetConfig } from "../../src/model/index.ts";
import {
  type Fp8Recipe,
  NativeBackend,
  QueueDevice,
  ReferenceBackend,
  reportRecipe,
} from "../../src/tensor/index.ts";
import type { Rows } from "../../src/train/batch.ts";
import type { TrainConfig } from "../../src/train/config.ts";
import { defaultTrainConfig } from "../../src/train/configSchema.ts";
import { scheduleAt } from "../../src/train/schedule.ts";
import { nativeIsMissing } from "../support/native.ts";
import { makeRandom } from "../support/random.ts";
import { makeSession, midway, randomRows, tinyTrainConfig } from "../support/tinyTraining.ts";
import { distance } from "../support/tolerance.ts";

const STEPS = 120;
const VOCABULARY = 128;

/**
 * Text of a fixed entropy, new in every step: after each token one of five, by chance. What there is to learn is learnt
 * steadily and nothing can be learnt by heart, which would make much of small differences.
 */
function text({ batchRows: count, rowLength }: TrainConfig, step: number): Rows {
  const random = makeRandom(1000 + step);
  const width = rowLength + 1;
  const tokens = new Int32Array(count * width);
  for (let i = 0; i < tokens.length; i++) {
    const last = i % width === 0 ? Math.floor(VOCABULARY * random()) : tokens[i - 1]!;
    tokens[i] = (37 * last + 11 * Math.floor(5 * random()) ** 2 + 5) % VOCABULARY;
  }
  return { tokens, count, rowLength };
}

async function losses(precision: TrainConfig["precision"], fp8: Partial<Fp8Recipe> = {}): Promise<number[]> {
  const model = { ...presetConfig("micro"), vocabSize: VOCABULARY };
  const config: TrainConfig = {
    ...defaultTrainConfig("micro", STEPS, model, precision),
    fp8: { ...reportRecipe, ...fp8 },
    batchRows: 8,
    microBatchRows: 8,
  };
  const bytes = 2 ** 30;
  const device = new QueueDevice(new NativeBackend({ threads: 2, reserveBytes: bytes }), bytes);
  const session = makeSession(config, device);
  const result: number[] = [];
  for (let step = 0; step < STEPS; step++) {
    const scheduled = scheduleAt(config, { step, share: step / STEPS });
    const { mainLoss } = await session.runner.compute(text(config, step), scheduled);
    session.runner.commit(scheduled);
    result.push(mainLoss);
  }
  session.dispose();
  await device.dispose();
  return result;
}

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;

/** Mean over the last quarter of (L - L_bf16) / L_bf16, and the largest relative distance of the smoothed curves. */
function apart(ours: readonly number[], bf16: readonly number[]): { lastQuarter: number; curves: number } {
  const relative = ours.map((loss, i) => loss / bf16[i]! - 1);
  const smooth = (values: readonly number[]): number[] => {
    let average = values[0]!;
    return values.map((value) => {
      average = 0.9 * average + 0.1 * value;
      return average;
    });
  };
  const [a, b] = [smooth(ours), smooth(bf16)];
  return {
    lastQuarter: mean(relative.slice(-STEPS / 4)),
    curves: Math.max(...a.map((value, i) => Math.abs(value / b[i]! - 1))),
  };
}

describe.skipIf(nativeIsMissing)("a short training of micro in FP8", () => {
  test("loses as bf16 does, with sums promoted every 128 or every 16 products", async () => {
    const bf16 = await losses("bf16");
    expect(bf16.at(-1)).toBeLessThan(0.4 * bf16[0]!);
    for (const promotion of [128, 16] as const) {
      const { lastQuarter, curves } = apart(await losses("fp8", { promotion }), bf16);
      // The report's own bar, and that of its curves.
      expect(Math.abs(lastQuarter), `promoted every ${promotion}`).toBeLessThan(0.0025);
      expect(curves, `promoted every ${promotion}`).toBeLessThan(0.005);
    }
  }, 240_000);
});

describe.skipIf(nativeIsMissing)("a step in FP8", () => {
  const config = tinyTrainConfig({ precision: "fp8", microBatchRows: 4 });

  async function step(device: QueueDevice) {
    const session = makeSession(config, device);
    const { loss } = await session.runner.compute(randomRows(4, config, 5), midway(config));
    const grads = new Map<string, ArrayLike<number>>();
    for (const { path, grad } of session.factory.parameters) grads.set(path, await grad!.read());
    session.dispose();
    await device.dispose();
    return { loss, grads };
  }

  test("is natively what it is in plain TypeScript, but where a number lies between two codes", async () => {
    const bytes = 2 ** 26;
    const native = await step(new QueueDevice(new NativeBackend({ threads: 2, reserveBytes: bytes }), bytes));
    const reference = await step(new QueueDevice(new ReferenceBackend(), bytes));
    expect(Math.abs(native.loss / reference.loss - 1)).toBeLessThan(1e-3);
    for (const [path, grad] of native.grads)
      expect(distance(grad, reference.grads.get(path)!).frobenius, path).toBeLessThan(0.1);
  });
});
