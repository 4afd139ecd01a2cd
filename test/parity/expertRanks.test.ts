/** Ranks that share the experts give the bits of one process: losses, router choices, norms, weights, moments. */
import { describe, expect, test } from "vitest";
import type { TrainConfig } from "../../src/train/config.ts";
import { nativeIsMissing } from "../support/native.ts";
import { expectSameParts } from "../support/rankedBits.ts";
import { sharedConfig, trainAlone, trainOnRanks } from "../support/rankedTraining.ts";

const STEPS = 10;

type Cut = readonly [ranks: number, ep: number, zero1: boolean, ranksPerNode?: number];
const all: readonly Cut[] = [
  [2, 2, false],
  [2, 2, true],
  [4, 2, false],
  [4, 2, true],
  [4, 4, false],
  [8, 2, true],
  [8, 4, true],
  [4, 4, true, 2],
  [8, 4, false, 1],
];
const some: readonly Cut[] = [
  [2, 2, true],
  [4, 2, false],
  [4, 4, true],
  [4, 4, false, 2],
];

const { optimizer } = sharedConfig("micro", "bf16");
const cases: readonly [string, TrainConfig, readonly Cut[]][] = [
  ["micro in bf16", sharedConfig("micro", "bf16"), all],
  ["micro in f32", sharedConfig("micro", "f32"), some],
  ["micro in FP8", sharedConfig("micro", "fp8"), some],
  ["unit in bf16", sharedConfig("unit", "bf16"), some],
  [
    "Muon, with recomputation",
    sharedConfig("micro", "bf16", {
      optimizer: { ...optimizer, kind: "muon" },
      recompute: "selective",
    }),
    [[4, 2, true]],
  ],
];

describe.skipIf(nativeIsMissing)("ranks that share the experts", () => {
  test.each(cases)(
    "have the bits of one process after ten steps: %s",
    { timeout: 600_000 },
    async (_, config, cuts) => {
      const alone = await trainAlone(config, STEPS);
      expect(new Set(alone.records.map(({ loss }) => loss)).size).toBe(STEPS);
      for (const [ranks, ep, zero1, ranksPerNode = null] of cuts) {
        const trained = await trainOnRanks(config, STEPS, { dp: ranks, zero1, ep }, ranksPerNode);
        expectSameParts(trained, alone);
        // Each has its share of the experts, and no more.
        const share = config.model.nRoutedExperts / ep;
        const own = [...trained[0]!.state.keys()].filter((name) =>
          /^model.*gateUpProj, expert \d+$/.test(name),
        );
        expect(new Set(own.map((name) => name.split(", ")[1])).size).toBe(share);
      }
    },
  );
});
