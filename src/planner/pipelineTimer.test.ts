import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { ChunkCosts } from "../parallel/index.ts";
import { schedules, type TrainingLayout } from "./layout.ts";
import { pipelineOf, pipelineTimer } from "./pipelineTimer.ts";

const layoutOf = (schedule: TrainingLayout["schedule"], pp: number): TrainingLayout => ({
  ...{ pp, dp: 1, ep: 1, schedule, microBatchRows: 1 },
});

/** A pair takes at least as long as the longer of its parts and no longer than both, as in every plan. */
const chunkTimes: fc.Arbitrary<ChunkCosts> = fc
  .tuple(
    fc.integer({ min: 1, max: 50 }),
    fc.integer({ min: 1, max: 50 }),
    fc.integer({ min: 1, max: 50 }),
    fc.double({ min: 0, max: 1, noNaN: true }),
  )
  .map(([forward, input, weight, hidden]) => {
    const backward = input + weight;
    const overlapped = Math.max(forward, backward) + hidden * Math.min(forward, backward);
    return { forward, backward, weight, overlapped };
  });

const pipelines = fc.record({
  pp: fc.constantFrom(2, 4, 6),
  further: fc.integer({ min: 0, max: 8 }).map((pairs) => 2 * pairs),
  chunks: chunkTimes,
});

describe.each(schedules)("the pipeline of %s", (schedule) => {
  test("does the forward and the whole backward of every micro-batch in every stage once", () => {
    fc.assert(
      fc.property(pipelines, ({ pp, further }) => {
        const microBatches = 2 * pp + further;
        const { actions, stages } = pipelineOf(layoutOf(schedule, pp), microBatches);
        const all = actions.flat();
        const count = (...kinds: string[]): number => all.filter(({ kind }) => kinds.includes(kind)).length;
        expect(count("forward", "overlapped")).toBe(microBatches * stages);
        expect(count("backward", "backwardInput", "overlapped")).toBe(microBatches * stages);
        expect(count("backwardInput")).toBe(count("backwardWeight"));
      }),
      { numRuns: 20 },
    );
  });

  test("the time of every rank is its spans and its bubble, and nothing else", () => {
    fc.assert(
      fc.property(pipelines, ({ pp, further, chunks }) => {
        const { simulated } = pipelineTimer(layoutOf(schedule, pp), 2 * pp + further, 100);
        const { spans, bubbles, makespan } = simulated({ chunks });
        for (const [rank, own] of spans.entries()) {
          const busy = own.reduce((sum, { start, end }) => sum + end - start, 0);
          expect(bubbles[rank]).toBeGreaterThanOrEqual(-1e-9 * makespan);
          expect(busy + bubbles[rank]!).toBeCloseTo(makespan, 6);
        }
      }),
      { numRuns: 20 },
    );
  });

  test("more micro-batches take longer and never raise the share that is bubble", () => {
    fc.assert(
      fc.property(pipelines, ({ pp, further, chunks }) => {
        const [few, more] = [2 * pp + further, 2 * pp + further + 4].map((microBatches) =>
          pipelineTimer(layoutOf(schedule, pp), microBatches, 100).simulated({ chunks }),
        );
        const share = ({ bubbles, makespan }: NonNullable<typeof few>): number =>
          bubbles.reduce((sum, bubble) => sum + bubble, 0) / makespan;
        expect(more!.makespan).toBeGreaterThan(few!.makespan);
        expect(share(more!)).toBeLessThanOrEqual(share(few!) + 1e-9);
      }),
      { numRuns: 20 },
    );
  });

  test("a step that is simulated in part lasts as long as the whole one where its stages are even", () => {
    fc.assert(
      fc.property(pipelines, ({ pp, further, chunks }) => {
        const [layout, microBatches] = [layoutOf(schedule, pp), 6 * pp + further];
        const whole = pipelineTimer(layout, microBatches, 100);
        const part = pipelineTimer(layout, microBatches, 6);
        expect(part.pipeline.microBatches).toBe(6 * pp);
        expect(whole.pipeline.microBatches).toBe(microBatches);
        const [found, exact] = [part.simulated({ chunks }), whole.simulated({ chunks })];
        expect(Math.abs(found.makespan / exact.makespan - 1)).toBeLessThan(1e-9);
        for (const [rank, bubble] of found.bubbles.entries()) {
          expect(bubble).toBeCloseTo(exact.bubbles[rank]!, 6);
        }
      }),
      { numRuns: 15 },
    );
  });
});
