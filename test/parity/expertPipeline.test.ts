/** Ranks that share experts inside a pipeline's stages give the bits of one process, whatever the schedule. */
import { describe, expect, test } from "vitest";
import type { Layout } from "../../src/parallel/index.ts";
import type { TrainConfig } from "../../src/train/config.ts";
import { nativeIsMissing } from "../support/native.ts";
import { expectSameParts } from "../support/rankedBits.ts";
import { pipelineConfig as config, trainAlone, trainOnRanks } from "../support/rankedTraining.ts";

const STEPS = 10;

/** Ranks of a node, if tokens take two hops. */
type Cut = Partial<Layout> & { readonly ranksPerNode?: number };
const four = { dp: 2, ep: 2, pp: 2 } as const;
const eight = { dp: 4, ep: 2, pp: 2 } as const;
const deep = { dp: 2, ep: 2, pp: 4, zero1: true } as const;
const { optimizer } = config("bf16", 4, 1);
const cases: readonly [string, TrainConfig, readonly Cut[]][] = [
  [
    "1F1B and ZB1P in bf16",
    config("bf16", 4, 0),
    [
      { schedule: "1f1b", ...four, zero1: true },
      { schedule: "1f1b", ...deep },
      { schedule: "zb", ...four },
      { schedule: "zb", ...deep },
      { schedule: "zb", ...eight, zero1: true },
    ],
  ],
  [
    "DualPipe in bf16, MTP's experts on the ranks of both ends",
    config("bf16", 4, 1),
    [
      { schedule: "dualpipe", ...four },
      { schedule: "dualpipe", ...deep },
      { schedule: "dualpipe", ...eight, zero1: true },
      { schedule: "dualpipe", dp: 4, ep: 4, pp: 2, zero1: true, ranksPerNode: 2 },
    ],
  ],
  [
    "DualPipeV of eight layers in bf16",
    config("bf16", 8, 1),
    [
      { schedule: "dualpipev", ...deep },
      { schedule: "dualpipev", ...eight },
    ],
  ],
  ["DualPipe in f32", config("f32", 4, 1), [{ schedule: "dualpipe", ...four, zero1: true }]],
  ["ZB1P in f32", config("f32", 4, 0), [{ schedule: "zb", ...four, zero1: true }]],
  ["DualPipe in FP8", config("fp8", 4, 1), [{ schedule: "dualpipe", dp: 4, ep: 4, pp: 2 }]],
  ["ZB1P in FP8", config("fp8", 4, 0), [{ schedule: "zb", ...eight }]],
  ["DualPipeV in FP8", config("fp8", 4, 1), [{ schedule: "dualpipev", ...four, zero1: true }]],
  [
    "DualPipe with Muon, that recomputes",
    { ...config("bf16", 4, 1), recompute: "selective", optimizer: { ...optimizer, kind: "muon" } },
    [{ schedule: "dualpipe", ...four, zero1: true }],
  ],
];

describe.skipIf(nativeIsMissing)("ranks that share the experts of a stage", () => {
  test.each(cases)(
    "have the bits of one process after ten steps: %s",
    { timeout: 600_000 },
    async (_, settings, cuts) => {
      const alone = await trainAlone(settings, STEPS);
      expect(new Set(alone.records.map(({ loss }) => loss)).size).toBe(STEPS);
      for (const { ranksPerNode = null, ...cut } of cuts) {
        const trained = await trainOnRanks(settings, STEPS, cut, ranksPerNode);
        expectSameParts(trained, alone);
        // Each has its share of its stages' experts, if there are any, and no more.
        const share = settings.model.nRoutedExperts / cut.ep!;
        for (const [rank, { state }] of trained.entries()) {
          const own = [...state.keys()].flatMap((name) => /gateUpProj, expert (\d+)$/.exec(name)?.[1] ?? []);
          for (const expert of own) expect(Math.floor(Number(expert) / share)).toBe(rank % cut.ep!);
        }
      }
    },
  );
});
