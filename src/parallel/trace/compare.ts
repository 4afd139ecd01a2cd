/** A recorded pipeline beside what its plan would take if nothing were lost between its chunks. */
import { writeAction } from "../schedule/notation.ts";
import type { PipelinePlan } from "../schedule/plan.ts";
import { planSchedule } from "../schedule/planSchedule.ts";
import { simulateTimes } from "../simulate/simulate.ts";
import { totalTime, union } from "./intervals.ts";
import { orderedRanks, type RankSpans, type Span } from "./spans.ts";

export interface StepComparison {
  readonly plan: PipelinePlan;
  /** From the first chunk of the first recorded step to its last. */
  readonly length: number;
  /** By rank: how much of that it computed no chunk. */
  readonly bubbles: readonly number[];
  /** The same with every action as long as it took, started as soon as its rank and its inputs are there. */
  readonly simulatedLength: number;
  readonly simulatedBubbles: readonly number[];
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
  const times = steps.map(timesByName);
  const simulated = simulateTimes(plan, (rank, action) => times[rank]!.get(writeAction(plan, action)) ?? 0);
  return {
    plan,
    length: end - start,
    bubbles: steps.map((spans) => end - start - totalTime(union(spans))),
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

/** What each action took, its breaks left out. */
function timesByName(spans: readonly Span[]): ReadonlyMap<string, number> {
  const times = new Map<string, number>();
  for (const { name, start, end } of spans) times.set(name, (times.get(name) ?? 0) + end - start);
  return times;
}
