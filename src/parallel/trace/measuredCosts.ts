/** What chunks took in a recorded step, as costs for the simulator; and what it says of the step with them. */
import { invariant } from "../../base/index.ts";
import type { PipelinePlan } from "../schedule/plan.ts";
import { planSchedule } from "../schedule/planSchedule.ts";
import type { ChunkCosts } from "../simulate/costs.ts";
import { simulate } from "../simulate/simulate.ts";
import { totalTime, union } from "./intervals.ts";
import { orderedRanks, type RankSpans, type Span, type SpanChunk } from "./spans.ts";

export interface StepComparison {
  readonly plan: PipelinePlan;
  /** From the first chunk of the first recorded step to its last. */
  readonly length: number;
  /** By rank: how much of that it computed no chunk. */
  readonly bubbles: readonly number[];
  readonly costs: readonly ChunkCosts[];
  readonly simulatedLength: number;
  readonly simulatedBubbles: readonly number[];
}

/** An action as it ran. */
interface Ran {
  readonly chunks: readonly SpanChunk[];
  seconds: number;
}

/** Null unless the ranks are those of one pipeline. */
export function compareWithSimulation(given: readonly RankSpans[]): StepComparison | null {
  const ranks = orderedRanks(given);
  const size = ranks[0]?.pipeline;
  if (size === undefined || size.ranks !== ranks.length) return null;
  const plan = planSchedule(size.schedule, size);
  const steps = ranks.map(({ spans }) => firstStep(spans));
  const all = steps.flat();
  if (all.length === 0) return null;
  const start = all.reduce((least, span) => Math.min(least, span.start), Number.POSITIVE_INFINITY);
  const end = all.reduce((most, span) => Math.max(most, span.end), Number.NEGATIVE_INFINITY);
  const costs = measuredCosts(plan.stages, steps);
  const simulated = simulate(plan, { chunks: costs });
  return {
    plan,
    length: end - start,
    bubbles: steps.map((spans) => end - start - totalTime(union(spans))),
    costs,
    simulatedLength: simulated.makespan,
    simulatedBubbles: simulated.bubbles,
  };
}

/** Chunks' spans until an action comes again. */
function firstStep(spans: readonly Span[]): readonly Span[] {
  const own = spans.filter(({ category, chunks = [] }) => category === "compute" && chunks.length > 0);
  const seen = new Set<string>();
  const next = own.findIndex(({ name }, i) => {
    const isAgain = seen.has(name) && own[i - 1]!.name !== name;
    seen.add(name);
    return isAgain;
  });
  return next < 0 ? own : own.slice(0, next);
}

/** Means by stage. A pair's gain is shared by the stages of its two chunks. */
function measuredCosts(stages: number, steps: readonly (readonly Span[])[]): readonly ChunkCosts[] {
  const actions = steps.flatMap(actionsOf);
  const times = (pass: SpanChunk["pass"], stage: number): readonly number[] =>
    actions
      .filter(({ chunks }) => chunks.length === 1 && chunks[0]!.pass === pass && chunks[0]!.stage === stage)
      .map(({ seconds }) => seconds);
  const singles = Array.from({ length: stages }, (_, stage) => {
    const weight = mean(times("backwardWeight", stage));
    const parts = mean(times("backwardInput", stage)) + weight;
    const full = times("backward", stage);
    const backward = full.length > 0 ? mean(full) : parts;
    return { forward: mean(times("forward", stage)), backward, weight: Math.min(weight, backward) };
  });
  const gains = Array.from({ length: stages }, (): number[] => []);
  for (const { chunks, seconds } of actions) {
    const [forward, backward] = chunks;
    if (forward === undefined || backward === undefined) continue;
    const gain = singles[forward.stage]!.forward + singles[backward.stage]!.backward - seconds;
    for (const { stage } of chunks) gains[stage]!.push(gain);
  }
  return singles.map((costs, stage) => ({
    ...costs,
    overlapped: Math.max(0, costs.forward + costs.backward - mean(gains[stage]!)),
  }));
}

function actionsOf(spans: readonly Span[]): readonly Ran[] {
  const byName = new Map<string, Ran>();
  for (const { name, chunks, start, end } of spans) {
    invariant(chunks !== undefined, "spans of chunks have chunks");
    const known = byName.get(name);
    if (known === undefined) byName.set(name, { chunks, seconds: end - start });
    else known.seconds += end - start;
  }
  return [...byName.values()];
}

function mean(values: readonly number[]): number {
  return values.length === 0 ? 0 : values.reduce((sum, value) => sum + value, 0) / values.length;
}
