import { describe, expect, test } from "vitest";
import { planDualPipe } from "../schedule/dualPipe.ts";
import { planDualPipeV } from "../schedule/dualPipeV.ts";
import { plan1F1B } from "../schedule/oneForwardOneBackward.ts";
import type { PipelinePlan } from "../schedule/plan.ts";
import { planZeroBubble } from "../schedule/zeroBubble.ts";
import type { ChunkCosts } from "./costs.ts";
import { simulate } from "./simulate.ts";

const unit: ChunkCosts = { forward: 1, backward: 2, weight: 1, overlapped: 3 };
const times = (spans: readonly { readonly start: number; readonly end: number }[]) =>
  spans.map(({ start, end }) => [start, end]);

describe("simulate", () => {
  test("starts an action when its rank is free and its input is there", () => {
    const { spans, makespan, bubbles } = simulate(plan1F1B({ ranks: 2, microBatches: 2 }), { chunks: unit });
    // rank 0: F0 F1 B0 B1; rank 1: F0 B0 F1 B1
    expect(times(spans[0]!)).toEqual([
      [0, 1],
      [1, 2],
      [4, 6],
      [7, 9],
    ]);
    expect(times(spans[1]!)).toEqual([
      [1, 2],
      [2, 4],
      [4, 5],
      [5, 7],
    ]);
    expect([makespan, bubbles]).toEqual([9, [3, 3]]);
  });

  test("lets results travel between ranks, but not inside one", () => {
    const straight = simulate(plan1F1B({ ranks: 2, microBatches: 1 }), { chunks: unit, latency: 0.25 });
    expect(straight.spans.map(times)).toEqual([
      [
        [0, 1],
        [4.5, 6.5],
      ],
      [
        [1.25, 2.25],
        [2.25, 4.25],
      ],
    ]);
    const folded = planDualPipeV({ ranks: 1, microBatches: 3 });
    expect(simulate(folded, { chunks: unit, latency: 5 }).makespan).toBe(18);
  });

  test("takes each stage's own costs, and each rank's pace", () => {
    const slow = { forward: 3, backward: 4, weight: 1, overlapped: 7 };
    const { spans } = simulate(plan1F1B({ ranks: 2, microBatches: 1 }), {
      chunks: [unit, slow],
      pace: [2, 1],
    });
    expect(spans.map(times)).toEqual([
      [
        [0, 2],
        [9, 13],
      ],
      [
        [2, 5],
        [5, 9],
      ],
    ]);
  });

  test("splits the backward into its input part and its weight part", () => {
    const chunks = { forward: 2, backward: 5, weight: 1.5, overlapped: 7 };
    const { spans } = simulate(planZeroBubble({ ranks: 1, microBatches: 1 }), { chunks });
    expect(times(spans[0]!)).toEqual([
      [0, 2],
      [2, 5.5],
      [5.5, 7],
    ]);
  });

  test("gives a pair of two stages the mean of what both save", () => {
    const costs = (forward: number, backward: number, overlapped: number) => ({
      ...{ forward, backward, overlapped },
      weight: 0,
    });
    const plan = planDualPipe({ ranks: 2, microBatches: 4 });
    const { spans } = simulate(plan, { chunks: [costs(1, 2, 2.5), costs(10, 20, 29)] });
    const pairs = spans[0]!.filter(({ action }) => action.kind === "overlapped");
    // Rank 0 holds stage 0 for direction 0: its pair is F of stage 1 with B of stage 0, 10 + 2 - (0.5 + 1) / 2.
    expect(pairs.map(({ start, end }) => end - start)).toEqual([11.25]);
  });

  test("holds a chunk until its weight part is done", () => {
    const peaks = (plan: PipelinePlan) => simulate(plan, { chunks: unit }).peakChunks;
    expect(peaks(plan1F1B({ ranks: 4, microBatches: 8 }))).toEqual([4, 3, 2, 1]);
    expect(peaks(planZeroBubble({ ranks: 4, microBatches: 8 }))).toEqual([4, 4, 4, 4]);
  });

  test("refuses costs that cannot be", () => {
    const plan = plan1F1B({ ranks: 2, microBatches: 2 });
    expect(() => simulate(plan, { chunks: { ...unit, forward: -1 } })).toThrow(/forward of stage 0 is -1/);
    expect(() => simulate(plan, { chunks: { ...unit, weight: 3 } })).toThrow(
      /weight 3 is more than backward 2/,
    );
    expect(() => simulate(plan, { chunks: [unit] })).toThrow(/1 costs for 2 stages/);
    expect(() => simulate(plan, { chunks: unit, pace: [1, 1, 1] })).toThrow(/3 paces for 2 ranks/);
    expect(() => simulate(plan, { chunks: unit, latency: Number.NaN })).toThrow(/latency is NaN/);
    expect(() => simulate(plan, { chunks: unit, pace: [1, -1] })).toThrow(/pace of rank 1 is -1/);
  });

  test("names the ranks of a plan that can never end", () => {
    const plan = plan1F1B({ ranks: 2, microBatches: 1 });
    const backwardFirst = plan.actions.map((actions, rank) => (rank === 1 ? actions.toReversed() : actions));
    expect(() => simulate({ ...plan, actions: backwardFirst }, { chunks: unit })).toThrow(
      /ranks 0, 1 of a 1f1b plan wait in a circle/,
    );
  });
});
