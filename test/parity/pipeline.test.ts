/** Ranks of a pipeline give the bits of one process, whatever the schedule: losses, router choices, norms, weights, moments. */
import { describe, expect, test } from "vitest";
import type { Layout, Schedule } from "../../src/parallel/index.ts";
import type { TrainConfig } from "../../src/train/config.ts";
import { nativeIsMissing } from "../support/native.ts";
import { expectSameParts } from "../support/rankedBits.ts";
import { pipelineConfig as config, trainAlone, trainOnRanks } from "../support/rankedTraining.ts";

const STEPS = 10;

type Cut = Partial<Layout>;
const plain = (schedule: Schedule): Cut[] => [
  { schedule, pp: 2, dp: 2 },
  { schedule, pp: 4, zero1: true },
];
const cases: readonly [string, TrainConfig, readonly Cut[]][] = [
  ["1F1B and ZB1P in bf16", config("bf16", 4, 0), [...plain("1f1b"), ...plain("zb")]],
  [
    "DualPipe in bf16, MTP's embedding and head shared over the ends",
    config("bf16", 4, 1),
    [
      { schedule: "dualpipe", pp: 2 },
      { schedule: "dualpipe", pp: 2, dp: 2, zero1: true },
      { schedule: "dualpipe", pp: 4, dp: 2 },
      { schedule: "dualpipe", pp: 4, dp: 1, zero1: true },
    ],
  ],
  [
    "DualPipeV of eight layers in bf16",
    config("bf16", 8, 1),
    [
      { schedule: "dualpipev", pp: 2, dp: 2, zero1: true },
      { schedule: "dualpipev", pp: 4 },
    ],
  ],
  ["DualPipe in f32", config("f32", 4, 1), [{ schedule: "dualpipe", pp: 2, dp: 2 }]],
  ["DualPipe in FP8", config("fp8", 4, 1), [{ schedule: "dualpipe", pp: 4, dp: 1, zero1: true }]],
  [
    "DualPipe that recomputes",
    { ...config("bf16", 4, 1), recompute: "selective" },
    [{ schedule: "dualpipe", pp: 2, dp: 1 }],
  ],
];

describe.skipIf(nativeIsMissing)("ranks of a pipeline", () => {
  test.each(cases)(
    "have the bits of one process after ten steps: %s",
    { timeout: 600_000 },
    async (_, settings, cuts) => {
      const alone = await trainAlone(settings, STEPS);
      expect(new Set(alone.records.map(({ loss }) => loss)).size).toBe(STEPS);
      for (const cut of cuts) expectSameParts(await trainOnRanks(settings, STEPS, cut), alone);
    },
  );
});
