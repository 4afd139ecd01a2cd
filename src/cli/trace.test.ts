import { describe, expect, test } from "vitest";
import { accountTimeline, planSchedule, type Span } from "../parallel/index.ts";
import { accountLines, simulationLines } from "./trace.ts";

function span(category: Span["category"], start: number, end: number): Span {
  return { name: category, category, start, end };
}

describe("accountLines", () => {
  test("have the whole, and of each rank what it computed, what was exposed, and the rest", () => {
    const lines = accountLines(
      accountTimeline([
        { rank: 1, spans: [span("compute", 0, 0.25), span("communication", 0.2, 0.35)] },
        { rank: 0, spans: [span("compute", 0, 0.5), span("wait", 0.5, 0.6)] },
      ]),
    );
    expect(lines).toHaveLength(3);
    expect(lines[0]).toBe("timeline  600 ms");
    expect(lines[1]).toMatch(/^rank 0 {4}computing 500 ms 83\.3% +exposed 0 ms 0\.0% +bubble 100 ms 16\.7%$/);
    expect(lines[2]).toMatch(
      /^rank 1 {4}computing 250 ms 41\.7% +exposed 100 ms 16\.7% +bubble 250 ms 41\.7%$/,
    );
  });

  test("of ranks that did nothing have no shares of nothing", () => {
    const lines = accountLines(accountTimeline([{ rank: 0, spans: [] }]));
    expect(lines.join("\n")).not.toContain("NaN");
    expect(lines[0]).toBe("timeline  0 ms");
  });
});

describe("simulationLines", () => {
  const plan = planSchedule("zb", { ranks: 2, microBatches: 4 });

  test("set the recorded step beside the simulated one, bubbles as means of the ranks", () => {
    const comparison = {
      ...{ plan, step: 1, length: 2, bubbles: [0.5, 0.3] },
      ...{ simulatedLength: 1.8, simulatedBubbles: [0.1, 0.3] },
    };
    expect(simulationLines(comparison)).toEqual([
      "pipeline  zb, 4 micro-batches, recorded step 2",
      "measured  2000 ms, bubble 400 ms 20.0%",
      "simulated 1800 ms, bubble 200 ms 11.1%",
    ]);
  });

  test("are none where there is no pipeline", () => {
    expect(simulationLines(null)).toEqual([]);
  });
});
