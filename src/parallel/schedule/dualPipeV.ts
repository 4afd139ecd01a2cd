/**
 * DualPipeV: DualPipe cut in half. R ranks hold 2R stages folded to a V: rank r has stage r on the way down and stage
 * 2R - 1 - r on the way back. Every stage lives on one rank only, micro-batches enter and end at rank 0, and the last
 * rank hands its output to itself.
 *
 * Bubble as DualPipe's with PP = 2R stages; at most PP + 1 micro-batches in flight.
 */
import { foldedActions } from "./folded.ts";
import { frozenPlan, type PipelinePlan, type PipelineSize, requirePipelineSize } from "./plan.ts";

export function planDualPipeV({ ranks, microBatches }: PipelineSize): PipelinePlan {
  requirePipelineSize("dualpipev", { ranks, microBatches }, { isEven: false, microBatchesPerRank: 2 });
  const stages = 2 * ranks;
  return frozenPlan({
    schedule: "dualpipev",
    ranks,
    microBatches,
    stages,
    stagesOf: Array.from({ length: ranks }, (_, rank) => [rank, stages - 1 - rank]),
    actions: Array.from({ length: ranks }, (_, rank) =>
      foldedActions({
        depth: ranks,
        position: rank,
        perPhase: microBatches,
        chunkOf: (phase, index) => ({ module: phase, direction: 0, microBatch: index }),
      }),
    ),
  });
}
