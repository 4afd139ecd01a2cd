/** What the actions of a plan take. All times in seconds (or in any one unit). */
import { ConfigError } from "../../base/index.ts";
import { type Action, type PipelinePlan, stageOf } from "../schedule/plan.ts";

/** One micro-batch in one stage. */
export interface ChunkCosts {
  readonly forward: number;
  /** Full backward: gradients of inputs and weights. */
  readonly backward: number;
  /** The weights' part of it. */
  readonly weight: number;
  /** A forward and a full backward of this stage as one overlapped unit. */
  readonly overlapped: number;
}

export interface SimulationCosts {
  /** One for all stages, or one for each. */
  readonly chunks: ChunkCosts | readonly ChunkCosts[];
  /** From the end of a chunk on one rank until the next rank can use it; 0 unless given. */
  readonly latency?: number;
  /** How many times longer than written each rank takes; 1 unless given. */
  readonly pace?: readonly number[];
}

/** @throws ConfigError if a cost is missing, negative or larger than what it is a part of */
export function requireCosts(plan: PipelinePlan, { chunks, latency = 0, pace }: SimulationCosts): void {
  const all = isPerStage(chunks) ? chunks : [chunks];
  if (isPerStage(chunks)) requireCount("costs", chunks.length, "stages", plan.stages);
  if (pace !== undefined) requireCount("paces", pace.length, "ranks", plan.ranks);
  for (const [stage, costs] of all.entries()) {
    for (const name of ["forward", "backward", "weight", "overlapped"] as const) {
      requireTime(`${name} of stage ${stage}`, costs[name]);
    }
    if (costs.weight > costs.backward) {
      throw new ConfigError(
        `stage ${stage}: weight ${costs.weight} is more than backward ${costs.backward}`,
        {
          why: "backward is the full one, of which the weight part is a part",
          fix: "give backward = input part + weight part",
          fields: { stage, ...costs },
        },
      );
    }
  }
  requireTime("latency", latency);
  for (const [rank, factor] of (pace ?? []).entries()) requireTime(`pace of rank ${rank}`, factor);
}

function requireCount(what: string, found: number, of: string, wanted: number): void {
  if (found === wanted) return;
  throw new ConfigError(`there are ${found} ${what} for ${wanted} ${of}`, {
    why: `every one of the plan's ${of} needs its own`,
    fix: `give ${wanted}`,
    fields: { found, wanted },
  });
}

function requireTime(name: string, value: number): void {
  if (Number.isFinite(value) && value >= 0) return;
  throw new ConfigError(`${name} is ${value}`, {
    why: "times are finite and not negative",
    fix: "give a number from 0 on",
    fields: { name, value },
  });
}

/** @returns how long a rank takes for an action */
export function actionDurations(
  { chunks, pace }: SimulationCosts,
  plan: PipelinePlan,
): (rank: number, action: Action) => number {
  const costsOf = (stage: number): ChunkCosts => (isPerStage(chunks) ? chunks[stage]! : chunks);
  return (rank, action) => {
    const factor = pace?.[rank] ?? 1;
    if (action.kind === "overlapped") {
      const forward = costsOf(stageOf(plan, { rank, chunk: action.forward }));
      const backward = costsOf(stageOf(plan, { rank, chunk: action.backward }));
      return factor * pairTime(forward, backward);
    }
    const { forward, backward, weight } = costsOf(stageOf(plan, { rank, chunk: action.chunk }));
    switch (action.kind) {
      case "forward":
        return factor * forward;
      case "backward":
        return factor * backward;
      case "backwardInput":
        return factor * (backward - weight);
      case "backwardWeight":
        return factor * weight;
    }
  };
}

/** A pair of two stages saves the mean of what a pair of either saves over its parts. */
function pairTime(forward: ChunkCosts, backward: ChunkCosts): number {
  if (forward === backward) return forward.overlapped;
  const saved = (costs: ChunkCosts) => costs.forward + costs.backward - costs.overlapped;
  return Math.max(0, forward.forward + backward.backward - (saved(forward) + saved(backward)) / 2);
}

function isPerStage(chunks: SimulationCosts["chunks"]): chunks is readonly ChunkCosts[] {
  return Array.isArray(chunks);
}
