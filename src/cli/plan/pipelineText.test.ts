import { describe, expect, test } from "vitest";
import { plan1F1B, planDualPipe, simulate } from "../../parallel/index.ts";
import { pipelineText } from "./pipelineText.ts";

const unit = { chunks: { forward: 1, backward: 2, weight: 1, overlapped: 3 } };

describe("pipelineText", () => {
  test("draws 1F1B of 4 ranks and 4 micro-batches as in every paper", () => {
    const simulation = simulate(plan1F1B({ ranks: 4, microBatches: 4 }), unit);
    expect(pipelineText(simulation, simulation.makespan)).toMatchInlineSnapshot(`
      [
        "0 FFFF......BB.BB.BB.BB",
        "1 .FFF....BBFBB.BB.BB..",
        "2 ..FF..BBFBBFBB.BB....",
        "3 ...FBBFBBFBBFBB......",
      ]
    `);
  });

  test("draws DualPipe from both ends, pairs as one unit", () => {
    const simulation = simulate(planDualPipe({ ranks: 4, microBatches: 8 }), unit);
    const lines = pipelineText(simulation, simulation.makespan);
    expect(lines).toHaveLength(4);
    expect(lines[0]).toMatch(/^0 F+.*#+.*[bw]$/);
    // Rank 3 is the mirror of rank 0.
    expect(lines[3]!.slice(2)).toBe(lines[0]!.slice(2));
  });

  test("is as wide as it is told, and shows what takes most of a column", () => {
    const simulation = simulate(plan1F1B({ ranks: 12, microBatches: 40 }), unit);
    const lines = pipelineText(simulation, 50);
    for (const line of lines) expect(line).toHaveLength(53);
    expect(lines[11]).toMatch(/^11 \.+/);
    expect(lines[0]).toMatch(/^ 0 F/);
  });
});
