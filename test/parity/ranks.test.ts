/** Data-parallel ranks give the bits of one process: losses, router choices, norms, weights, moments. */
import { describe, expect, test } from "vitest";
import type { TrainConfig } from "../../src/train/config.ts";
import { nativeIsMissing } from "../support/native.ts";
import { expectSameBits } from "../support/rankedBits.ts";
import { firstGradients, sharedConfig, trainAlone, trainOnRanks } from "../support/rankedTraining.ts";
import { distance } from "../support/tolerance.ts";

const STEPS = 10;

type Cut = readonly [ranks: number, zero1: boolean];
const all: readonly Cut[] = [1, 2, 4, 8].flatMap((ranks): Cut[] => [
  [ranks, false],
  [ranks, true],
]);
const some: readonly Cut[] = [
  [2, true],
  [8, false],
];

const { optimizer, data } = sharedConfig("micro", "bf16");
const unit = sharedConfig("unit", "bf16");
const { numHiddenLayers: firstKDenseReplace } = unit.model;
const dense: TrainConfig = {
  ...unit,
  model: { ...unit.model, firstKDenseReplace, numNextnPredictLayers: 0 },
};
const cases: readonly [string, TrainConfig, readonly Cut[]][] = [
  ["micro in bf16", sharedConfig("micro", "bf16"), all],
  ["micro in f32", sharedConfig("micro", "f32"), some],
  ["micro in FP8", sharedConfig("micro", "fp8"), some],
  ["unit in bf16", unit, some],
  ["Muon", sharedConfig("micro", "bf16", { optimizer: { ...optimizer, kind: "muon" } }), [[4, true]]],
  ["without experts or MTP", dense, [[2, true]]],
  [
    "masked documents, two rows a micro-batch",
    sharedConfig("micro", "bf16", { microBatchRows: 2, data: { ...data, maskDocuments: true } }),
    [[2, true]],
  ],
];

describe.skipIf(nativeIsMissing)("data-parallel ranks", () => {
  test.each(cases)(
    "have the bits of one process after ten steps: %s",
    { timeout: 300_000 },
    async (_, config, cuts) => {
      const alone = await trainAlone(config, STEPS);
      expect(new Set(alone.records.map(({ loss }) => loss)).size).toBe(STEPS);
      for (const [ranks, zero1] of cuts)
        expectSameBits(await trainOnRanks(config, STEPS, { dp: ranks, zero1 }), alone, zero1);
    },
  );
});

test.skipIf(nativeIsMissing)(
  "the first step's gradients of micro in f32 differ by rounding alone where the shards do",
  async () => {
    const [one, ...others] = await Promise.all(
      [1, 2, 8].map((gradientShards) => firstGradients(sharedConfig("micro", "f32", { gradientShards }))),
    );
    for (const grads of others) {
      for (const [path, grad] of grads)
        expect(distance(grad, one!.get(path)!).frobenius, path).toBeLessThan(1e-6);
    }
  },
);
