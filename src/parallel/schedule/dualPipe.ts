/**
 * DualPipe: micro-batches enter at both ends, so that a rank always has a forward of one direction to overlap with a
 * backward of the other. Rank r holds stage r for direction 0 and stage PP - 1 - r for direction 1: the gradients of a
 * stage arise on two ranks and are summed before the update.
 *
 * Bubble (PP/2 - 1)(F&B + B - 3W); at most PP + 1 micro-batches in flight.
 *
 * Source: DeepSeek-V3 report, section 3.2.1, figure 5.
 */
import { foldedActions } from "./folded.ts";
import { frozenPlan, type PipelinePlan, type PipelineSize, requirePipelineSize } from "./plan.ts";

export function planDualPipe({ ranks, microBatches }: PipelineSize): PipelinePlan {
  requirePipelineSize("dualpipe", { ranks, microBatches }, { isEven: true, microBatchesPerRank: 2 });
  const perDirection = microBatches / 2;
  return frozenPlan({
    schedule: "dualpipe",
    ranks,
    microBatches,
    stages: ranks,
    stagesOf: Array.from({ length: ranks }, (_, rank) => [rank, ranks - 1 - rank]),
    actions: Array.from({ length: ranks }, (_, rank) => {
      // Seen from its own end, the second half is the mirror of the first.
      const isSecondHalf = rank >= ranks / 2;
      return foldedActions({
        depth: ranks / 2,
        position: isSecondHalf ? ranks - 1 - rank : rank,
        perPhase: perDirection,
        chunkOf: (phase, index) => {
          const direction = (phase === 1) === isSecondHalf ? 0 : 1;
          return { module: direction, direction, microBatch: direction * perDirection + index };
        },
      });
    }),
  });
}
