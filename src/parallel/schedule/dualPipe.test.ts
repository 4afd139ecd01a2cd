import { describe, expect, test } from "vitest";
import { ConfigError } from "../../base/index.ts";
import { planDualPipe } from "./dualPipe.ts";
import { planDualPipeV } from "./dualPipeV.ts";
import { writeAction } from "./notation.ts";
import type { Action, PipelinePlan, PipelineSize } from "./plan.ts";

function counts(actions: readonly Action[]): Record<Action["kind"], number> {
  const count = (kind: Action["kind"]) => actions.filter((action) => action.kind === kind).length;
  return {
    forward: count("forward"),
    backward: count("backward"),
    backwardInput: count("backwardInput"),
    backwardWeight: count("backwardWeight"),
    overlapped: count("overlapped"),
  };
}

function text(plan: PipelinePlan, rank: number): string {
  return plan.actions[rank]!.map((action) => writeAction(plan, action)).join(" ");
}

describe("planDualPipe", () => {
  test.each([
    { ranks: 2, microBatches: 4 },
    { ranks: 8, microBatches: 20 },
    { ranks: 16, microBatches: 120 },
  ])("has the report's totals on every rank: %o", ({ ranks, microBatches }) => {
    const plan = planDualPipe({ ranks, microBatches });
    const half = ranks / 2;
    for (const [rank, actions] of plan.actions.entries()) {
      const hr = Math.min(rank, ranks - 1 - rank);
      const isMiddle = hr === half - 1;
      const lone = 2 * (half - hr - 1) + 2 * (hr + 1) + (half - hr - 1);
      const split = 2 * (half - hr - 1) + (hr + 1);
      const pairs = 2 * (microBatches / 2 - ranks + hr + 1) + (half - hr - 1);
      // The middle ranks take one pair apart.
      expect(counts(actions)).toEqual({
        forward: lone + (isMiddle ? 1 : 0),
        backward: lone - split + (isMiddle ? 1 : 0),
        backwardInput: split,
        backwardWeight: split,
        overlapped: pairs - (isMiddle ? 1 : 0),
      });
    }
  });

  test("of 16 ranks and 120 micro-batches has 97 + hr pairs, 23 - hr lone passes, 15 - hr weight parts", () => {
    const { actions } = planDualPipe({ ranks: 16, microBatches: 120 });
    for (let hr = 0; hr < 7; hr++) {
      const { overlapped, forward, backward, backwardInput, backwardWeight } = counts(actions[hr]!);
      expect([overlapped, forward, backward + backwardInput, backwardWeight]).toEqual([
        97 + hr,
        23 - hr,
        23 - hr,
        15 - hr,
      ]);
    }
  });

  test("on 4 ranks with 8 micro-batches reads so", () => {
    const plan = planDualPipe({ ranks: 4, microBatches: 8 });
    expect(text(plan, 0)).toBe(
      "F>0 F>1 F>2 F<0 Bi<0 W<0 F<1 F>3&B<1 F<2&B>0 B<2 F<3&B>1 B<3 Bi>2 W>2 Bi>3 W>3",
    );
    expect(text(plan, 1)).toBe("F>0 F<0 F>1 F<1 F>2 B<0 F<2&B>0 F>3&B<1 F<3&B>1 B<2 B>2 Bi<3 Bi>3 W<3 W>3");
  });

  test("numbers the micro-batches of both directions through the step", () => {
    const plan = planDualPipe({ ranks: 4, microBatches: 8 });
    expect(plan.actions[0]![0]).toEqual({
      kind: "forward",
      chunk: { module: 0, direction: 0, microBatch: 0 },
    });
    expect(plan.actions[3]![0]).toEqual({
      kind: "forward",
      chunk: { module: 1, direction: 1, microBatch: 4 },
    });
    expect(plan.stagesOf).toEqual([
      [0, 3],
      [1, 2],
      [2, 1],
      [3, 0],
    ]);
  });

  test.each<[PipelineSize, RegExp]>([
    [{ ranks: 3, microBatches: 8 }, /3 ranks are odd[\s\S]*use 4 ranks/],
    [{ ranks: 4, microBatches: 9 }, /9 micro-batches are odd[\s\S]*use 10/],
    [{ ranks: 4, microBatches: 6 }, /6 micro-batches are too few for 4 ranks[\s\S]*at least 8/],
    [{ ranks: 4, microBatches: 3 }, /3 micro-batches are odd[\s\S]*use 8/],
    [{ ranks: -2, microBatches: 8 }, /there cannot be -2 ranks/],
  ])("refuses %o", (size, message) => {
    expect(() => planDualPipe(size)).toThrow(ConfigError);
    expect(() => planDualPipe(size)).toThrow(message);
  });
});

describe("planDualPipeV", () => {
  test("on 2 ranks with 4 micro-batches is DualPipe's first half, `<` being the way back", () => {
    const plan = planDualPipeV({ ranks: 2, microBatches: 4 });
    const mirrored = planDualPipe({ ranks: 4, microBatches: 8 });
    expect([text(plan, 0), text(plan, 1)]).toEqual([text(mirrored, 0), text(mirrored, 1)]);
    expect(plan.stagesOf).toEqual([
      [0, 3],
      [1, 2],
    ]);
    expect(plan.actions[0]![3]).toEqual({
      kind: "forward",
      chunk: { module: 1, direction: 0, microBatch: 0 },
    });
  });

  test("takes odd numbers, and one rank", () => {
    expect(planDualPipeV({ ranks: 3, microBatches: 7 }).stages).toBe(6);
    expect(text(planDualPipeV({ ranks: 1, microBatches: 2 }), 0)).toBe(
      "F>0 F<0 F>1 B<0 F<1&B>0 B<1 Bi>1 W>1",
    );
  });

  test("refuses too few micro-batches", () => {
    expect(() => planDualPipeV({ ranks: 4, microBatches: 7 })).toThrow(
      /7 micro-batches are too few for 4 ranks/,
    );
  });
});
