/** Our pipeline plans against a simulator of the released schedules, and against the bubble formulas of their authors. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  type ChunkCosts,
  type PipelinePlan,
  type PipelineSize,
  plan1F1B,
  planDualPipe,
  planDualPipeV,
  planZeroBubble,
  simulate,
  writeAction,
} from "../../src/parallel/index.ts";

const balanced: ChunkCosts = { forward: 1, backward: 2, weight: 1, overlapped: 3 };

/** `F>0@0 F>1@1 ...`, one text for each rank. */
function written(plan: PipelinePlan, costs: ChunkCosts): readonly string[] {
  return simulate(plan, { chunks: costs }).spans.map((spans) =>
    spans.map(({ action, start }) => `${writeAction(plan, action)}@${start}`).join(" "),
  );
}

describe("DualPipe, PP 8 and 20 micro-batches", () => {
  const text = readFileSync(join(import.meta.dirname, "schedules/dualpipe-8-20.txt"), "utf8");
  const golden = text
    .split(/^rank\d: /m)
    .slice(1)
    .map((rank) => rank.trim().split(/\s+/).join(" "));
  const plan = planDualPipe({ ranks: 8, microBatches: 20 });

  test("starts every action of ranks 0 to 3 when the released schedule does", () => {
    expect(golden.length).toBe(4);
    expect(written(plan, balanced).slice(0, 4)).toEqual(golden);
  });

  test("is mirrored in ranks 4 to 7, with the directions swapped", () => {
    const swapped = golden.map((rank) => rank.replaceAll(/[<>]/g, (arrow) => (arrow === "<" ? ">" : "<")));
    expect(written(plan, balanced).slice(4)).toEqual(swapped.reverse());
  });

  test("with pairs that gain half a unit has the bubbles that were simulated", () => {
    const { makespan, bubbles } = simulate(plan, { chunks: { ...balanced, overlapped: 2.5 } });
    expect([makespan, ...bubbles]).toEqual([59, 3.5, 4, 4.5, 4.5, 4.5, 4.5, 4, 3.5]);
  });

  test("with input parts twice as long has the bubbles that were simulated", () => {
    const chunks = { forward: 1, backward: 3, weight: 1, overlapped: 3.5 };
    const { makespan, bubbles } = simulate(plan, { chunks });
    expect([makespan, Math.min(...bubbles), Math.max(...bubbles)]).toEqual([84, 8.5, 9.5]);
  });
});

interface Row {
  readonly plan: (size: PipelineSize) => PipelinePlan;
  readonly size: PipelineSize;
  readonly makespan: number;
  readonly bubble: number;
  /** Of the fullest rank. */
  readonly peakChunks: number;
}

/** 1F1B holds PP chunks by its authors' table; the others were counted by the simulator of the released schedules. */
const rows: readonly Row[] = [
  { plan: planDualPipe, size: { ranks: 4, microBatches: 8 }, makespan: 26, bubble: 2, peakChunks: 5 },
  { plan: planDualPipe, size: { ranks: 4, microBatches: 10 }, makespan: 32, bubble: 2, peakChunks: 5 },
  { plan: planDualPipe, size: { ranks: 8, microBatches: 16 }, makespan: 54, bubble: 6, peakChunks: 9 },
  { plan: planDualPipe, size: { ranks: 8, microBatches: 20 }, makespan: 66, bubble: 6, peakChunks: 9 },
  { plan: planDualPipe, size: { ranks: 16, microBatches: 120 }, makespan: 374, bubble: 14, peakChunks: 17 },
  { plan: planDualPipeV, size: { ranks: 4, microBatches: 10 }, makespan: 66, bubble: 6, peakChunks: 9 },
  { plan: plan1F1B, size: { ranks: 8, microBatches: 20 }, makespan: 81, bubble: 21, peakChunks: 8 },
  { plan: planZeroBubble, size: { ranks: 8, microBatches: 20 }, makespan: 67, bubble: 7, peakChunks: 8 },
  { plan: planZeroBubble, size: { ranks: 16, microBatches: 120 }, makespan: 375, bubble: 15, peakChunks: 16 },
];

describe.each(rows)("$plan.name of $size", ({ plan, size, makespan, bubble, peakChunks }) => {
  const simulation = simulate(plan(size), { chunks: balanced });

  test("takes as long as was simulated, with the same bubble on every rank", () => {
    expect(simulation.makespan).toBe(makespan);
    expect(simulation.bubbles).toEqual(Array.from({ length: size.ranks }, () => bubble));
  });

  test("holds as many chunks as was simulated", () => {
    expect(Math.max(...simulation.peakChunks)).toBe(peakChunks);
  });
});
