import { describe, expect, test } from "vitest";
import { ConfigError } from "../../base/index.ts";
import { plan1F1B } from "./oneForwardOneBackward.ts";

/** Forwards and backwards of one rank as text: `F0 F1 B0`. */
function order(ranks: number, microBatches: number, rank: number): string {
  return plan1F1B({ ranks, microBatches })
    .actions[rank]!.map((action) => {
      if (action.kind !== "forward" && action.kind !== "backward")
        throw new Error(`unexpected ${action.kind}`);
      return `${action.kind === "forward" ? "F" : "B"}${action.chunk.microBatch}`;
    })
    .join(" ");
}

describe("plan1F1B", () => {
  test("warms up, alternates and drains", () => {
    expect(order(4, 6, 0)).toBe("F0 F1 F2 F3 B0 F4 B1 F5 B2 B3 B4 B5");
    expect(order(4, 6, 2)).toBe("F0 F1 B0 F2 B1 F3 B2 F4 B3 F5 B4 B5");
    expect(order(4, 6, 3)).toBe("F0 B0 F1 B1 F2 B2 F3 B3 F4 B4 F5 B5");
  });

  test("copes with fewer micro-batches than ranks, and with a single rank", () => {
    expect(order(8, 2, 0)).toBe("F0 F1 B0 B1");
    expect(order(8, 2, 7)).toBe("F0 B0 F1 B1");
    expect(order(1, 3, 0)).toBe("F0 B0 F1 B1 F2 B2");
  });

  test("is frozen through and through", () => {
    const plan = plan1F1B({ ranks: 2, microBatches: 2 });
    const action = plan.actions[0]![0]!;
    expect(Object.isFrozen(plan) && Object.isFrozen(plan.actions) && Object.isFrozen(plan.actions[0])).toBe(
      true,
    );
    expect(Object.isFrozen(action) && action.kind === "forward" && Object.isFrozen(action.chunk)).toBe(true);
    expect(Object.isFrozen(plan.stagesOf) && Object.isFrozen(plan.stagesOf[1])).toBe(true);
  });

  test.each([
    [{ ranks: 0, microBatches: 4 }, /there cannot be 0 ranks/],
    [{ ranks: 1.5, microBatches: 4 }, /there cannot be 1.5 ranks/],
    [{ ranks: 4, microBatches: 0 }, /there cannot be 0 micro-batches/],
    [{ ranks: 4, microBatches: Number.NaN }, /there cannot be NaN micro-batches/],
  ])("refuses %o", (size, message) => {
    expect(() => plan1F1B(size)).toThrow(ConfigError);
    expect(() => plan1F1B(size)).toThrow(message);
  });
});
