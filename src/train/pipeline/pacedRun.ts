/** Carries out a pipeline plan with paced chunks over real messages, and tells what every rank's queue did. */
import {
  barrier,
  type Communicator,
  type PipelinePlan,
  type RankSpans,
  RankTracer,
  type SimulationCosts,
} from "../../parallel/index.ts";
import { type HubLink, Recording } from "../../tensor/index.ts";
import { type PairForm, PipelineExecutor } from "./executor.ts";
import { PacedModel } from "./pacedModel.ts";

export interface PacedRun {
  readonly plan: PipelinePlan;
  readonly costs: SimulationCosts;
  /** [T, D] of what goes from stage to stage. */
  readonly shape: readonly [number, number];
  /** What the messages travel by, if they are paced. */
  readonly link?: HubLink;
  /** Layers of every stage whose tokens go to experts on other ranks, and the bytes to each of them. */
  readonly experts?: { readonly layers: number; readonly bytes: number };
  /** Interleaved by default. */
  readonly pairs?: PairForm;
}

/** Ranks in pipelines side by side: those with the same number in theirs share the experts of its stages. */
export interface PacedWorld {
  readonly world: Communicator;
  readonly pipeline: Communicator;
  readonly group: Communicator;
}

/** @param length  ranks of a pipeline: rank r of the world is rank r mod length of its own */
export function pacedWorld(world: Communicator, length: number): PacedWorld {
  const rank = world.rank % length;
  const first = world.rank - rank;
  return {
    world,
    pipeline: world.split(Array.from({ length }, (_, i) => first + i)),
    group: world.split(Array.from({ length: world.size / length }, (_, i) => rank + i * length)),
  };
}

/** What this rank did in one step. */
export async function runPaced({ world, pipeline, group }: PacedWorld, run: PacedRun): Promise<RankSpans> {
  const { plan, costs, shape, link, experts, pairs = "interleaved" } = run;
  const { device } = world;
  const { rank } = pipeline;
  const paced = experts === undefined ? {} : { experts: { ...experts, group } };
  const model = new PacedModel({ plan, rank, device, costs, shape, ...paced });
  const executor = new PipelineExecutor(plan, pipeline, model, { pairs });
  const step = new Recording(device, () => executor.enqueue());
  // Builds the recording, and touches the memory.
  step.run();
  await device.drain();
  const linked = link === undefined ? {} : { link };
  const tracer = await RankTracer.begin(world, { pipeline: { plan, rank }, ...linked });
  await barrier(world);
  await tracer.discard();
  step.run();
  const spans = await tracer.end();
  await barrier(world);
  return spans;
}
