/** What holds for every legal plan. A run checks 10,000 random ones, under random costs. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { simulate } from "../simulate/simulate.ts";
import { planDualPipe } from "./dualPipe.ts";
import { planDualPipeV } from "./dualPipeV.ts";
import { plan1F1B } from "./oneForwardOneBackward.ts";
import { type Action, type Chunk, holderOf, type PipelinePlan, stageOf } from "./plan.ts";
import { planZeroBubble } from "./zeroBubble.ts";

const anyPlan: fc.Arbitrary<PipelinePlan> = fc.oneof(
  straight().map(plan1F1B),
  straight().map(planZeroBubble),
  fc
    .record({ half: fc.integer({ min: 1, max: 6 }), more: fc.integer({ min: 0, max: 8 }) })
    .map(({ half, more }) => planDualPipe({ ranks: 2 * half, microBatches: 4 * half + 2 * more })),
  fc
    .record({ ranks: fc.integer({ min: 1, max: 7 }), more: fc.integer({ min: 0, max: 12 }) })
    .map(({ ranks, more }) => planDualPipeV({ ranks, microBatches: 2 * ranks + more })),
);

function straight() {
  return fc.record({ ranks: fc.integer({ min: 1, max: 12 }), microBatches: fc.integer({ min: 1, max: 32 }) });
}

const time = fc.double({ min: 0, max: 10, noNaN: true });
const anyCosts = fc.record({
  forward: time,
  input: time,
  weight: time,
  gain: fc.double({ min: 0, max: 1, noNaN: true }),
});

interface Tally {
  readonly forward: number;
  readonly backward: number;
  readonly weight: number;
}

/** How often each stage forwards, backwards, and takes the weights' gradients of each micro-batch. */
function tally(plan: PipelinePlan): readonly Tally[] {
  const counts = Array.from({ length: plan.stages * plan.microBatches }, () => ({
    forward: 0,
    backward: 0,
    weight: 0,
  }));
  for (const [rank, actions] of plan.actions.entries()) {
    const at = (chunk: Chunk) =>
      counts[stageOf(plan, { rank, chunk }) * plan.microBatches + chunk.microBatch]!;
    for (const action of actions) {
      if (action.kind === "overlapped") {
        at(action.forward).forward++;
        at(action.backward).backward++;
        at(action.backward).weight++;
        continue;
      }
      if (action.kind === "forward") at(action.chunk).forward++;
      if (action.kind === "backward" || action.kind === "backwardInput") at(action.chunk).backward++;
      if (action.kind === "backward" || action.kind === "backwardWeight") at(action.chunk).weight++;
    }
  }
  return counts;
}

/** What is wrong with one rank's weight parts: taken in another order than left, or left over. */
function weightQueueFault(actions: readonly Action[]): string | null {
  const queue: Chunk[] = [];
  for (const action of actions) {
    if (action.kind === "backwardInput") queue.push(action.chunk);
    if (action.kind !== "backwardWeight") continue;
    const oldest = queue.shift();
    if (oldest?.module !== action.chunk.module || oldest.microBatch !== action.chunk.microBatch) {
      return `${JSON.stringify(action.chunk)} is not the oldest`;
    }
  }
  return queue.length === 0 ? null : `${queue.length} weight parts are left`;
}

/** The bubble of F = input part = weight part = 1 and F&B = 3. */
function balancedBubble({ schedule, ranks, stages, microBatches }: PipelinePlan): number {
  switch (schedule) {
    case "1f1b":
      return (ranks - 1) * (1 + 2);
    case "zb":
      // (PP - 1)(F + B - 2W), and one W more for each micro-batch that is missing to fill the pipeline.
      return (ranks - 1) * (1 + 2 - 2) + Math.max(0, ranks - microBatches);
    case "dualpipe":
    case "dualpipev":
      return (stages / 2 - 1) * (3 + 2 - 3);
  }
}

describe("every plan", () => {
  test("is complete, ends, empties its weight queue, keeps the memory bound and the bubble formula", () => {
    let plans = 0;
    fc.assert(
      fc.property(anyPlan, anyCosts, time, (plan, { forward, input, weight, gain }, latency) => {
        plans++;
        expect(tally(plan).every((one) => one.forward === 1 && one.backward === 1 && one.weight === 1)).toBe(
          true,
        );
        expect(plan.actions.map(weightQueueFault).find((fault) => fault !== null)).toBeUndefined();

        const backward = input + weight;
        const overlapped = Math.max(forward, backward) + gain * Math.min(forward, backward);
        const chunks = { forward, backward, weight, overlapped };
        const pace = plan.actions.map((_, rank) => 1 + ((rank * 7) % 5) / 4);
        const { spans, makespan, bubbles, peakChunks } = simulate(plan, { chunks, latency, pace });
        expect(spans.map(({ length }) => length)).toEqual(plan.actions.map(({ length }) => length));
        expect(Number.isFinite(makespan)).toBe(true);
        expect(Math.min(...bubbles)).toBeGreaterThanOrEqual(-1e-9 * makespan);
        expect(Math.max(...peakChunks)).toBeLessThanOrEqual(plan.stages + 1);

        const balanced = simulate(plan, { chunks: { forward: 1, backward: 2, weight: 1, overlapped: 3 } });
        expect(new Set(balanced.bubbles)).toEqual(new Set([balancedBubble(plan)]));
      }),
      { numRuns: 10_000 },
    );
    expect(plans).toBe(10_000);
    // Seven seconds of one core: longer where others use it too.
  }, 240_000);

  test("has every stage in one place for each direction", () => {
    fc.assert(
      fc.property(anyPlan, (plan) => {
        for (const direction of plan.schedule === "dualpipe" ? ([0, 1] as const) : ([0] as const)) {
          const chunk: Chunk = { module: 0, direction, microBatch: 0 };
          for (let stage = 0; stage < plan.stages; stage++) {
            expect(stageOf(plan, holderOf(plan, stage, chunk)!)).toBe(stage);
          }
          expect([holderOf(plan, -1, chunk), holderOf(plan, plan.stages, chunk)]).toEqual([null, null]);
        }
      }),
      { numRuns: 200 },
    );
  });

  test("comes out the same when it is made again", () => {
    fc.assert(
      fc.property(straight(), (size) => {
        expect(planZeroBubble(size)).toEqual(planZeroBubble(size));
      }),
      { numRuns: 50 },
    );
  });
});
