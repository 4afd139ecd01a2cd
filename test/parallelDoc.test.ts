/** What docs/parallel.md draws and lists is what the plans and their simulator give. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  type PipelinePlan,
  plan1F1B,
  planDualPipe,
  planDualPipeV,
  planZeroBubble,
  simulate,
  writeAction,
} from "../src/parallel/index.ts";

const text = readFileSync(join(import.meta.dirname, "../docs/parallel.md"), "utf8");
const chunks = { forward: 1, backward: 2, weight: 1, overlapped: 3 };

/** The block of lines behind a marker. */
function behind(marker: string): string {
  return text.split(`<!-- ${marker} -->\n`)[1]!.split("\n\n")[0]!;
}

/** Five characters for each unit of time. */
function drawing(plan: PipelinePlan): string {
  const rows = simulate(plan, { chunks }).spans.map((spans, rank) => {
    const row = spans.reduce((line, { action, start, end }) => {
      const cell = writeAction(plan, action).padEnd(5 * (end - start));
      return line.padEnd(5 * start) + cell;
    }, "");
    return `${rank}: ${row}`.trimEnd();
  });
  return ["```", ...rows, "```"].join("\n");
}

const names = { "1f1b": "1F1B", zb: "ZB1P", dualpipe: "DualPipe", dualpipev: "DualPipeV" } as const;

function bubbleRow(plan: PipelinePlan): string {
  const { makespan, bubbles, peakChunks } = simulate(plan, { chunks });
  expect(new Set(bubbles).size).toBe(1);
  const work = makespan - bubbles[0]!;
  const values = [plan.ranks, plan.microBatches, work, makespan, bubbles[0]!, Math.max(...peakChunks)];
  return `| ${names[plan.schedule]} | ${values.join(" | ")} |`;
}

describe("docs/parallel.md", () => {
  test("draws DualPipe on 4 ranks", () => {
    expect(behind("drawing")).toBe(drawing(planDualPipe({ ranks: 4, microBatches: 8 })));
  });

  test("lists simulated bubbles", () => {
    const rows = [
      plan1F1B({ ranks: 8, microBatches: 20 }),
      planZeroBubble({ ranks: 8, microBatches: 20 }),
      planDualPipe({ ranks: 8, microBatches: 20 }),
      planDualPipeV({ ranks: 4, microBatches: 10 }),
      plan1F1B({ ranks: 16, microBatches: 120 }),
      planZeroBubble({ ranks: 16, microBatches: 120 }),
      planDualPipe({ ranks: 16, microBatches: 120 }),
    ].map(bubbleRow);
    expect(behind("bubbles").split("\n").slice(2)).toEqual(rows);
  });
});
