/**
 * 1F1B: every rank forwards until the first gradient comes back, then alternates, then drains.
 *
 * The baseline: its bubble is (PP - 1)(F + B), and rank r holds at most PP - r micro-batches.
 */
import {
  type Action,
  type Chunk,
  frozenPlan,
  type PipelinePlan,
  type PipelineSize,
  requirePipelineSize,
} from "./plan.ts";

export function plan1F1B({ ranks, microBatches }: PipelineSize): PipelinePlan {
  requirePipelineSize("1f1b", { ranks, microBatches }, { isEven: false, microBatchesPerRank: 0 });
  return frozenPlan({
    schedule: "1f1b",
    ranks,
    microBatches,
    stages: ranks,
    stagesOf: Array.from({ length: ranks }, (_, rank) => [rank]),
    actions: Array.from({ length: ranks }, (_, rank) =>
      passOrder(ranks, microBatches, rank).map(
        ({ pass, microBatch }): Action => ({ kind: pass, chunk: straightChunk(microBatch) }),
      ),
    ),
  });
}

export interface Pass {
  readonly pass: "forward" | "backward";
  readonly microBatch: number;
}

/** Forwards and backwards of one rank in order; ZB1P keeps the same one. */
export function passOrder(ranks: number, microBatches: number, rank: number): readonly Pass[] {
  const warmUp = Math.min(ranks - rank - 1, microBatches);
  const passes: Pass[] = [];
  for (let microBatch = 0; microBatch < warmUp; microBatch++) passes.push({ pass: "forward", microBatch });
  for (let microBatch = 0; microBatch < microBatches; microBatch++) {
    const ahead = microBatch + warmUp;
    if (ahead < microBatches) passes.push({ pass: "forward", microBatch: ahead });
    passes.push({ pass: "backward", microBatch });
  }
  return passes;
}

/** The chunk of a pipeline that has one direction and one stage per rank. */
export function straightChunk(microBatch: number): Chunk {
  return { module: 0, direction: 0, microBatch };
}
