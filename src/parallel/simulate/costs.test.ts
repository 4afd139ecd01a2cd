import { describe, expect, test } from "vitest";
import { ConfigError } from "../../base/index.ts";
import { planDualPipe } from "../schedule/dualPipe.ts";
import type { Action, Chunk } from "../schedule/plan.ts";
import { actionDurations, type ChunkCosts, requireCosts } from "./costs.ts";

/** Rank 0 has stage 0 as module 0 and stage 1 as module 1; rank 1 the other way round. */
const plan = planDualPipe({ ranks: 2, microBatches: 4 });
const near: ChunkCosts = { forward: 1, backward: 3, weight: 1, overlapped: 3.5 };
const far: ChunkCosts = { forward: 10, backward: 30, weight: 12, overlapped: 39 };
const at = (module: 0 | 1): Chunk => ({ module, direction: module, microBatch: 2 * module });
const kinds = ["forward", "backward", "backwardInput", "backwardWeight"] as const;
const pair = (forward: 0 | 1, backward: 0 | 1): Action => ({
  kind: "overlapped",
  forward: at(forward),
  backward: at(backward),
});

describe("actionDurations", () => {
  test("takes the costs of the stage that the chunk's module is on that rank, times the rank's pace", () => {
    const durationOf = actionDurations({ chunks: [near, far], pace: [1, 2] }, plan);
    const of = (rank: number, module: 0 | 1): number[] =>
      kinds.map((kind) => durationOf(rank, { kind, chunk: at(module) }));
    expect(of(0, 0)).toEqual([1, 3, 2, 1]);
    expect(of(0, 1)).toEqual([10, 30, 18, 12]);
    expect(of(1, 0)).toEqual([20, 60, 36, 24]);
    expect(of(1, 1)).toEqual([2, 6, 4, 2]);
  });

  test("takes a pair of one stage as given, and of two stages less the mean of what they save", () => {
    const durationOf = actionDurations({ chunks: [near, far], pace: [1, 2] }, plan);
    expect([durationOf(0, pair(0, 0)), durationOf(0, pair(1, 1))]).toEqual([3.5, 39]);
    // 1 + 30 and 10 + 3, less (0.5 + 1) / 2.
    expect([durationOf(0, pair(0, 1)), durationOf(0, pair(1, 0))]).toEqual([30.25, 12.25]);
    expect(durationOf(1, pair(0, 1))).toBe(24.5);
    expect(actionDurations({ chunks: near }, plan)(0, pair(0, 1))).toBe(3.5);
  });

  test("lets no pair take less than no time, however much one of its stages saves", () => {
    const idle = { forward: 0, backward: 0, weight: 0, overlapped: 0 };
    const lopsided = { ...idle, forward: 100 };
    expect(actionDurations({ chunks: [idle, lopsided] }, plan)(0, pair(0, 1))).toBe(0);
  });
});

describe("requireCosts", () => {
  test("takes times of nothing, and a weight part that is all of the backward", () => {
    const nothing = { forward: 0, backward: 0, weight: 0, overlapped: 0 };
    expect(() => requireCosts(plan, { chunks: nothing, latency: 0, pace: [0, 0] })).not.toThrow();
    expect(() => requireCosts(plan, { chunks: [near, { ...far, weight: 30 }] })).not.toThrow();
  });

  test.each([
    ["backward of stage 1 is NaN", { chunks: [near, { ...far, backward: Number.NaN }] }],
    ["overlapped of stage 0 is Infinity", { chunks: { ...near, overlapped: Number.POSITIVE_INFINITY } }],
    ["there are 0 paces for 2 ranks", { chunks: near, pace: [] }],
    ["latency is -0.5", { chunks: near, latency: -0.5 }],
  ])("refuses with %j", (message, costs) => {
    expect(() => requireCosts(plan, costs)).toThrow(ConfigError);
    expect(() => requireCosts(plan, costs)).toThrow(message);
  });
});
