/**
 * Which ranks hold a stage of the pipeline, in the order of the blocks of micro-batches that they compute with it.
 *
 * A stage has a copy at each data-parallel rank; under DualPipe another at the mirrored rank, which computes the later
 * half of each data-parallel rank's micro-batches. Their gradients are summed by a tree whose leaves stand in this
 * order, so the sum does not depend on the layout.
 */
import type { PipelinePlan } from "./schedule/plan.ts";

/** How many pipelines there are, and how many ranks each has. */
export interface PipelineSizes {
  readonly dp: number;
  readonly pp: number;
}

/** World rank of a pipeline's rank. The ranks of one stage stand next to each other. */
export function worldRank({ dp }: PipelineSizes, pipelineRank: number, data: number): number {
  return pipelineRank * dp + data;
}

/** The ranks of one pipeline, in its order. */
export function pipelineRanks(layout: PipelineSizes, data: number): readonly number[] {
  return Array.from({ length: layout.pp }, (_, p) => worldRank(layout, p, data));
}

/** World ranks with a copy of the stage. */
export function stageHolders(layout: PipelineSizes, plan: PipelinePlan, stage: number): readonly number[] {
  // Under DualPipe a rank's second module is for the later half of the micro-batches.
  const modules = plan.schedule === "dualpipe" ? [0, 1] : null;
  const holders = (module: number | null): readonly number[] =>
    [...plan.stagesOf.keys()].filter((p) =>
      module === null ? plan.stagesOf[p]!.includes(stage) : plan.stagesOf[p]![module] === stage,
    );
  const inPipeline = modules === null ? holders(null) : modules.flatMap(holders);
  return Array.from({ length: layout.dp }, (_, data) =>
    inPipeline.map((p) => worldRank(layout, p, data)),
  ).flat();
}

/** Into how many runs of blocks a pipeline's micro-batches fall: DualPipe's directions are one each. */
export function directionsOf(plan: PipelinePlan): number {
  return plan.schedule === "dualpipe" ? 2 : 1;
}
