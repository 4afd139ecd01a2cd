/**
 * A pipeline plan: who computes which chunk of which micro-batch in which order. Plain frozen data; an executor obeys
 * it, a simulator times it, a page draws it.
 *
 * What a plan does not list follows from it: a forward takes the result of the same micro-batch's forward one stage
 * earlier, a backward that of the stage behind, and `holderOf` says which rank holds that stage. A weight part takes
 * the oldest bundle that an input-only backward of the same rank has left (one FIFO per rank).
 *
 * Source: DeepSeek-V3 report, section 3.2.1.
 */
import { ConfigError } from "../../base/index.ts";

export type Schedule = "1f1b" | "zb" | "dualpipe" | "dualpipev";

/** One micro-batch in one stage of one rank. */
export interface Chunk {
  /** Which of its rank's stages computes it: index into `stagesOf[rank]`. */
  readonly module: 0 | 1;
  /** 0 enters the pipeline at rank 0, 1 (DualPipe only) at the last rank. */
  readonly direction: 0 | 1;
  /** Number in the whole step; DualPipe gives the first half to direction 0 and the second to direction 1. */
  readonly microBatch: number;
}

export type Action =
  | { readonly kind: "forward"; readonly chunk: Chunk }
  /** Gradients of inputs and weights. */
  | { readonly kind: "backward"; readonly chunk: Chunk }
  /** Gradients of inputs; the weight part waits in the rank's FIFO. */
  | { readonly kind: "backwardInput"; readonly chunk: Chunk }
  /** The oldest weight part of the rank's FIFO, which is this chunk's. */
  | { readonly kind: "backwardWeight"; readonly chunk: Chunk }
  /** A forward and a full backward of different micro-batches in one unit, their pieces interleaved. */
  | { readonly kind: "overlapped"; readonly forward: Chunk; readonly backward: Chunk };

export interface PipelinePlan {
  readonly schedule: Schedule;
  readonly ranks: number;
  readonly microBatches: number;
  readonly stages: number;
  /** The stages of each rank: by module. */
  readonly stagesOf: readonly (readonly number[])[];
  /** What each rank does, in its order. */
  readonly actions: readonly (readonly Action[])[];
}

export interface PipelineSize {
  readonly ranks: number;
  readonly microBatches: number;
}

/** Where a chunk is computed. */
export interface Holder {
  readonly rank: number;
  readonly chunk: Chunk;
}

export function stageOf(plan: PipelinePlan, { rank, chunk }: Holder): number {
  return plan.stagesOf[rank]![chunk.module]!;
}

/** Where the same micro-batch meets another stage; null before the first stage and behind the last. */
export function holderOf(plan: PipelinePlan, stage: number, { direction, microBatch }: Chunk): Holder | null {
  if (stage < 0 || stage >= plan.stages) return null;
  switch (plan.schedule) {
    case "1f1b":
    case "zb":
      return { rank: stage, chunk: { module: 0, direction, microBatch } };
    case "dualpipe":
      // Each rank holds the stage of its own number for direction 0 and the mirrored one for direction 1.
      return {
        rank: direction === 0 ? stage : plan.ranks - 1 - stage,
        chunk: { module: direction, direction, microBatch },
      };
    case "dualpipev":
      return stage < plan.ranks
        ? { rank: stage, chunk: { module: 0, direction, microBatch } }
        : { rank: plan.stages - 1 - stage, chunk: { module: 1, direction, microBatch } };
  }
}

/** @throws ConfigError if a plan of this schedule cannot have these numbers */
export function requirePipelineSize(
  schedule: Schedule,
  { ranks, microBatches }: PipelineSize,
  rule: { readonly isEven: boolean; readonly microBatchesPerRank: number },
): void {
  const fewest = Math.max(1, rule.microBatchesPerRank * ranks);
  const refuse = (what: string, why: string, fix: string) => {
    const fields = { schedule, ranks, microBatches };
    throw new ConfigError(`schedule ${schedule}: ${what}`, { why, fix, fields });
  };
  if (!Number.isSafeInteger(ranks) || ranks < 1) {
    refuse(`there cannot be ${ranks} ranks`, "ranks are counted", "give a whole number of ranks from 1 on");
  }
  if (!Number.isSafeInteger(microBatches) || microBatches < 1) {
    const fix = "give a whole number of micro-batches from 1 on";
    refuse(`there cannot be ${microBatches} micro-batches`, "micro-batches are counted", fix);
  }
  if (rule.isEven && ranks % 2 !== 0) {
    const why = "micro-batches enter at both ends and meet between the two ranks in the middle";
    refuse(`${ranks} ranks are odd`, why, `use ${ranks + 1} ranks, or the schedule dualpipev, 1f1b or zb`);
  }
  if (rule.isEven && microBatches % 2 !== 0) {
    const why = "half of the micro-batches enter at each end";
    refuse(`${microBatches} micro-batches are odd`, why, `use ${Math.max(fewest, microBatches + 1)}`);
  }
  if (microBatches < fewest) {
    const why = `with fewer than ${rule.microBatchesPerRank} micro-batches for each rank the pipeline never fills`;
    const fix = `use at least ${fewest} micro-batches (smaller ones, or more in a step), or the schedule 1f1b or zb`;
    refuse(`${microBatches} micro-batches are too few for ${ranks} ranks`, why, fix);
  }
}

/** The plan with everything in it frozen. */
export function frozenPlan(plan: PipelinePlan): PipelinePlan {
  for (const stages of plan.stagesOf) Object.freeze(stages);
  for (const list of plan.actions) {
    for (const action of list) {
      for (const chunk of chunksOf(action)) Object.freeze(chunk);
      Object.freeze(action);
    }
    Object.freeze(list);
  }
  Object.freeze(plan.stagesOf);
  Object.freeze(plan.actions);
  return Object.freeze(plan);
}

export function chunksOf(action: Action): readonly Chunk[] {
  return action.kind === "overlapped" ? [action.forward, action.backward] : [action.chunk];
}
