import { describe, expect, test } from "vitest";
import { plan1F1B, planDualPipe, planDualPipeV, planZeroBubble, simulate } from "../parallel/index.ts";
import { bubbleFormula, bubbleTable } from "./bubbleTable.ts";
import { publishedLayout } from "./published.ts";

const unit = { forward: 1, backward: 2, weight: 1, overlapped: 3 };

describe("bubbleTable", () => {
  test("is the report's table 2 for 8 stages in units of a forward", () => {
    expect(bubbleTable(8, unit)).toEqual([
      { schedule: "1f1b", bubble: 21, parameters: 1, chunks: 8, devices: 8 },
      { schedule: "zb", bubble: 7, parameters: 1, chunks: 8, devices: 8 },
      { schedule: "dualpipe", bubble: 6, parameters: 2, chunks: 9, devices: 8 },
      { schedule: "dualpipev", bubble: 6, parameters: 2, chunks: 9, devices: 4 },
    ]);
  });

  test("says what the simulator finds, bubble and chunks, for 4, 8 and 16 stages", () => {
    for (const stages of [4, 8, 16]) {
      const size = { ranks: stages, microBatches: 4 * stages };
      const plans = [
        plan1F1B(size),
        planZeroBubble(size),
        planDualPipe(size),
        planDualPipeV({ ranks: stages / 2, microBatches: 4 * stages }),
      ];
      const found = plans.map((plan) => {
        const { bubbles, peakChunks } = simulate(plan, { chunks: unit });
        return [Math.max(...bubbles), Math.max(...peakChunks), plan.ranks];
      });
      expect(found).toEqual(bubbleTable(stages, unit).map((row) => [row.bubble, row.chunks, row.devices]));
    }
  });

  test("with the measured chunks of V3 DualPipe's is 0.98 s, 1F1B's nearly three times as long", () => {
    const measured = { forward: 0.058, backward: 0.127, weight: 0.042, overlapped: 0.139 };
    expect(bubbleFormula("dualpipe", publishedLayout.pp, measured)).toBeCloseTo(0.98, 2);
    expect(bubbleFormula("1f1b", publishedLayout.pp, measured)).toBeCloseTo(2.775, 3);
    expect(bubbleFormula("zb", publishedLayout.pp, measured)).toBeCloseTo(1.515, 3);
  });
});
