/**
 * Times a plan by its dependencies alone: an action starts when its rank is free and its inputs are there.
 *
 * A forward needs the previous stage's forward, a backward its own forward and the next stage's backward, a weight part
 * nothing but its bundle; an overlapped pair needs the inputs of both and delivers both results at its end.
 */
import { invariant } from "../../base/index.ts";
import { advanceRanks } from "../schedule/advance.ts";
import {
  type Action,
  type Chunk,
  type Holder,
  holderOf,
  type PipelinePlan,
  stageOf,
} from "../schedule/plan.ts";
import { actionDurations, requireCosts, type SimulationCosts } from "./costs.ts";

export interface SimulatedSpan {
  readonly action: Action;
  readonly start: number;
  readonly end: number;
}

export interface Simulation {
  /** By rank, in order. */
  readonly spans: readonly (readonly SimulatedSpan[])[];
  readonly makespan: number;
  /** By rank: the part of the makespan in which it has nothing to do. */
  readonly bubbles: readonly number[];
  /** By rank: most chunks at once whose activations are held, from the start of a forward to the end of its weight part. */
  readonly peakChunks: readonly number[];
}

export function simulate(plan: PipelinePlan, costs: SimulationCosts): Simulation {
  requireCosts(plan, costs);
  const spans = runRanks(plan, costs);
  const makespan = spans.reduce((latest, list) => Math.max(latest, list.at(-1)?.end ?? 0), 0);
  return {
    spans,
    makespan,
    bubbles: spans.map((list) => list.reduce((rest, { start, end }) => rest - (end - start), makespan)),
    peakChunks: plan.actions.map(peakChunks),
  };
}

function runRanks(plan: PipelinePlan, costs: SimulationCosts): SimulatedSpan[][] {
  const results = new Results(plan, costs.latency ?? 0);
  const durationOf = actionDurations(costs, plan);
  const spans: SimulatedSpan[][] = plan.actions.map(() => []);
  advanceRanks(plan.ranks, (rank) => {
    const done = spans[rank]!;
    const action = plan.actions[rank]![done.length];
    const ready = action && results.readyTime(rank, action);
    if (action === undefined || ready === null || ready === undefined) return false;
    const start = Math.max(done.at(-1)?.end ?? 0, ready);
    const end = start + durationOf(rank, action);
    done.push({ action, start, end });
    results.deliver(rank, action, end);
    return true;
  });
  const stuck = plan.actions.flatMap((actions, rank) => (spans[rank]!.length < actions.length ? [rank] : []));
  invariant(stuck.length === 0, `ranks ${stuck.join(", ")} of a ${plan.schedule} plan wait in a circle`);
  return spans;
}

/** When each chunk's forward and input gradients were done. */
class Results {
  readonly #plan: PipelinePlan;
  readonly #latency: number;
  /** By stage and micro-batch, which meet once; NaN while it is not done. */
  readonly #forwardEnds: Float64Array;
  readonly #backwardEnds: Float64Array;

  constructor(plan: PipelinePlan, latency: number) {
    this.#plan = plan;
    this.#latency = latency;
    this.#forwardEnds = new Float64Array(plan.stages * plan.microBatches).fill(Number.NaN);
    this.#backwardEnds = this.#forwardEnds.slice();
  }

  /** When the inputs of an action are on its rank; null if one of them is not made yet. */
  readyTime(rank: number, action: Action): number | null {
    switch (action.kind) {
      case "forward":
        return this.#forwardInput({ rank, chunk: action.chunk });
      case "backward":
      case "backwardInput":
        return this.#backwardInput({ rank, chunk: action.chunk });
      case "backwardWeight":
        return 0;
      case "overlapped":
        return laterOf(
          this.#forwardInput({ rank, chunk: action.forward }),
          this.#backwardInput({ rank, chunk: action.backward }),
        );
    }
  }

  deliver(rank: number, action: Action, end: number): void {
    const [forward, backward] = passes(action);
    if (forward !== null) this.#forwardEnds[this.#index({ rank, chunk: forward })] = end;
    if (backward !== null) this.#backwardEnds[this.#index({ rank, chunk: backward })] = end;
  }

  #forwardInput(place: Holder): number | null {
    const source = holderOf(this.#plan, stageOf(this.#plan, place) - 1, place.chunk);
    return source === null ? 0 : this.#arrival(this.#forwardEnds, source, place.rank);
  }

  #backwardInput(place: Holder): number | null {
    const own = this.#arrival(this.#forwardEnds, place, place.rank);
    const source = holderOf(this.#plan, stageOf(this.#plan, place) + 1, place.chunk);
    return source === null ? own : laterOf(own, this.#arrival(this.#backwardEnds, source, place.rank));
  }

  #arrival(ends: Float64Array, source: Holder, rank: number): number | null {
    const end = ends[this.#index(source)]!;
    if (Number.isNaN(end)) return null;
    return source.rank === rank ? end : end + this.#latency;
  }

  #index(place: Holder): number {
    return stageOf(this.#plan, place) * this.#plan.microBatches + place.chunk.microBatch;
  }
}

function laterOf(a: number | null, b: number | null): number | null {
  return a === null || b === null ? null : Math.max(a, b);
}

/** Whose forward and whose input gradients an action makes. */
function passes(action: Action): readonly [Chunk | null, Chunk | null] {
  switch (action.kind) {
    case "forward":
      return [action.chunk, null];
    case "backward":
    case "backwardInput":
      return [null, action.chunk];
    case "backwardWeight":
      return [null, null];
    case "overlapped":
      return [action.forward, action.backward];
  }
}

/** Follows from a rank's order alone. A pair holds both of its chunks. */
function peakChunks(actions: readonly Action[]): number {
  let held = 0;
  let most = 0;
  for (const { kind } of actions) {
    if (kind === "forward" || kind === "overlapped") held++;
    most = Math.max(most, held);
    if (kind === "backward" || kind === "backwardWeight" || kind === "overlapped") held--;
  }
  return most;
}
