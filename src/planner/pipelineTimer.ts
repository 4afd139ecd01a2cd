/** A layout's pipeline as a plan, and what simulates it. */
import {
  type PipelinePlan,
  plan1F1B,
  planDualPipe,
  planDualPipeV,
  planZeroBubble,
  type Simulation,
  type SimulationCosts,
  simulate,
} from "../parallel/index.ts";
import type { TrainingLayout } from "./layout.ts";

export function pipelineOf({ pp, schedule }: TrainingLayout, microBatches: number): PipelinePlan {
  const size = { ranks: pp, microBatches };
  switch (schedule) {
    case "1f1b":
      return plan1F1B(size);
    case "zb":
      return planZeroBubble(size);
    case "dualpipe":
      return planDualPipe(size);
    case "dualpipev":
      return planDualPipeV(size);
  }
}

/**
 * The pipeline's plan and what times it. Where a step has more micro-batches than are simulated, two shorter steps tell
 * what every further micro-batch adds: warm-up and drain do not depend on how many there are.
 */
export function pipelineTimer(
  layout: TrainingLayout,
  microBatches: number,
  perRank: number,
): { pipeline: PipelinePlan; simulated: (costs: SimulationCosts) => Simulation } {
  const most = perRank * layout.pp;
  if (microBatches <= most) {
    const pipeline = pipelineOf(layout, microBatches);
    return { pipeline, simulated: (costs) => simulate(pipeline, costs) };
  }
  const short = most - 2 * layout.pp;
  const [pipeline, shorter] = [pipelineOf(layout, most), pipelineOf(layout, short)];
  const further = (microBatches - most) / (most - short);
  const extended = (far: number, near: number): number => far + further * (far - near);
  return {
    pipeline,
    simulated: (costs) => {
      const [far, near] = [simulate(pipeline, costs), simulate(shorter, costs)];
      return {
        ...far,
        makespan: extended(far.makespan, near.makespan),
        bubbles: far.bubbles.map((bubble, rank) => extended(bubble, near.bubbles[rank]!)),
      };
    },
  };
}
