import { describe, expect, test } from "vitest";
import { writeAction } from "./notation.ts";
import { plan1F1B } from "./oneForwardOneBackward.ts";
import { planZeroBubble } from "./zeroBubble.ts";

function text(ranks: number, microBatches: number, rank: number): string {
  const plan = planZeroBubble({ ranks, microBatches });
  return plan.actions[rank]!.map((action) => writeAction(plan, action)).join(" ");
}

describe("planZeroBubble", () => {
  test("keeps 1F1B's order of passes", () => {
    const size = { ranks: 6, microBatches: 11 };
    const straight = plan1F1B(size).actions;
    const split = planZeroBubble(size).actions.map((actions) =>
      actions
        .filter(({ kind }) => kind !== "backwardWeight")
        .map((action) => (action.kind === "backwardInput" ? { ...action, kind: "backward" } : action)),
    );
    expect(split).toEqual(straight);
  });

  test("puts off as many weight parts as the rank's number, and fills waiting with them", () => {
    expect(text(3, 4, 0)).toBe("F0 F1 F2 Bi0 W0 F3 Bi1 W1 Bi2 W2 Bi3 W3");
    expect(text(3, 4, 1)).toBe("F0 F1 Bi0 F2 Bi1 W0 F3 Bi2 W1 Bi3 W2 W3");
    expect(text(3, 4, 2)).toBe("F0 Bi0 F1 Bi1 F2 Bi2 W0 F3 Bi3 W1 W2 W3");
  });

  test("fills a wait that is just as long as a weight part", () => {
    // Rank 1 has backwarded micro-batch 0 at 5; the gradient of 1 comes at 6.
    expect(text(3, 2, 1)).toBe("F0 F1 Bi0 W0 Bi1 W1");
  });

  test("refuses what is not a number of ranks or micro-batches", () => {
    expect(() => planZeroBubble({ ranks: 0, microBatches: 4 })).toThrow(/there cannot be 0 ranks/);
    expect(() => planZeroBubble({ ranks: 4, microBatches: 2.5 })).toThrow(
      /there cannot be 2.5 micro-batches/,
    );
  });
});
