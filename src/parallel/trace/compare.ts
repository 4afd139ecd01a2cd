/** A recorded pipeline beside what its plan would take if nothing were lost between its chunks. */
import { writeAction } from "../schedule/notation.ts";
import type { PipelinePlan } from "../schedule/plan.ts";
import { planSchedule } from "../schedule/planSchedule.ts";
import { simulateTimes } from "../simulate/simulate.ts";
import { totalTime, union } from "./intervals.ts";
import { orderedRanks, type RankSpans, type Span } from "./spans.ts";

export interface StepComparison {
  readonly plan: PipelinePlan;
  /** Which of the recorded steps, from 0. */
  readonly step: number;
  /** From the first chunk of the step to its last. */
  readonly length: number;
  /** By rank: how much of that it computed no chunk. */
  readonly bubbles: readonly number[];
  /** The same with every action as long as it took, started as soon as its rank and its inputs are there. */
  readonly simulatedLength: number;
  readonly simulatedBubbles: readonly number[];
}

/** The shortest of the recorded steps. Null unless the ranks are those of one pipeline. */
export function compareWithSimulation(given: readonly RankSpans[]): StepComparison | null {
  const ranks = orderedRanks(given);
  const size = ranks[0]?.pipeline;
  if (size === undefined || size.ranks !== ranks.length) return null;
  const plan = planSchedule(size.schedule, size);
  const steps = ranks.map(({ spans }) => stepsOf(spans));
  const whole = Math.min(...steps.map(({ length }) => length));
  const comparisons = Array.from({ length: whole }, (_, step) =>
    compareStep(
      plan,
      steps.map((of) => of[step]!),
      step,
    ),
  );
  return comparisons.toSorted((a, b) => a.length - b.length)[0] ?? null;
}

/** @param spans  the chunks of one step, by rank */
function compareStep(plan: PipelinePlan, spans: readonly (readonly Span[])[], step: number): StepComparison {
  const all = spans.flat();
  const start = all.reduce((least, span) => Math.min(least, span.start), Number.POSITIVE_INFINITY);
  const end = all.reduce((most, span) => Math.max(most, span.end), Number.NEGATIVE_INFINITY);
  const times = spans.map(timesByName);
  const simulated = simulateTimes(plan, (rank, action) => times[rank]!.get(writeAction(plan, action)) ?? 0);
  return {
    ...{ plan, step },
    length: end - start,
    bubbles: spans.map((own) => end - start - totalTime(union(own))),
    simulatedLength: simulated.makespan,
    simulatedBubbles: simulated.bubbles,
  };
}

/** The spans of chunks; a step ends where an action of it comes again. */
function stepsOf(spans: readonly Span[]): readonly (readonly Span[])[] {
  const steps: Span[][] = [];
  let seen = new Set<string>();
  let last = "";
  for (const span of spans) {
    const { name, category, chunks = [] } = span;
    if (category !== "compute" || chunks.length === 0) continue;
    if (steps.length === 0 || (seen.has(name) && last !== name)) {
      steps.push([]);
      seen = new Set();
    }
    steps.at(-1)!.push(span);
    seen.add(name);
    last = name;
  }
  return steps;
}

/** What each action took, its breaks left out. */
function timesByName(spans: readonly Span[]): ReadonlyMap<string, number> {
  const times = new Map<string, number>();
  for (const { name, start, end } of spans) times.set(name, (times.get(name) ?? 0) + end - start);
  return times;
}
