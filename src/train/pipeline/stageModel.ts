/** One rank's stages of the model, as the executor sees them: chunks in, losses and gradients out. */
import { invariant } from "../../base/index.ts";
import type { ExpertDispatch, Pass, Precision, Stage, Stream } from "../../model/index.ts";
import type { Chunk, ExchangeTags } from "../../parallel/index.ts";
import type { Param, QueueDevice, RopeTable, Tape } from "../../tensor/index.ts";
import type { BatchTensors } from "../batch.ts";
import { type LossScales, lossesOf, type PartLosses, seedLosses } from "../losses.ts";
import type { PipelineModel } from "./executor.ts";

/** A micro-batch of the step, in memory of its own: a whole step is enqueued at once. */
export interface PipelineBatch {
  readonly tensors: BatchTensors;
  readonly balanceAlpha: Param;
}

export interface StageParts {
  /** By module of the plan. */
  readonly stages: readonly Stage[];
  readonly device: QueueDevice;
  readonly batches: readonly PipelineBatch[];
  readonly rope: RopeTable;
  readonly precision: Precision;
  readonly recomputes: boolean;
  readonly scales: LossScales;
  /** How tokens reach experts of other ranks, by messages with these tags; null where this rank has all. */
  readonly dispatch: ((tags: ExchangeTags) => ExpertDispatch) | null;
  /** Takes what a chunk adds to the step's record. */
  readonly record: (microBatch: number, losses: PartLosses) => void;
  readonly finished: PipelineModel["finished"];
}

export class StageModel implements PipelineModel {
  readonly recomputes: boolean;
  readonly #parts: StageParts;

  constructor(parts: StageParts) {
    this.#parts = parts;
    this.recomputes = parts.recomputes;
  }

  get boundary(): PipelineModel["boundary"] {
    const { stages, batches, precision } = this.#parts;
    const { size: T } = batches[0]!.tensors.ids;
    const shape = [T, stages[0]!.config.hiddenSize];
    return { shape, residual: precision.residual, update: precision.activation };
  }

  forward(chunk: Chunk, input: Stream | null, tape: Tape): Stream | null {
    const { module, microBatch } = chunk;
    const { stages, batches, rope, precision, record, dispatch } = this.#parts;
    const stage = stages[module]!;
    const { tensors: batch, balanceAlpha } = batches[microBatch]!;
    const { positions, seqOffsets } = batch;
    const common = { positions, seqOffsets, rope, precision, cache: null, balanceAlpha };
    const pass: Pass = { ...common, dispatch: dispatch?.(exchangeTags(chunk)) ?? null };
    const { device } = this.#parts;
    const { output, losses } = device.withTape(tape, () => this.#build(stage, input, batch, pass));
    record(microBatch, losses);
    seedLosses(tape, losses);
    return output;
  }

  finished(chunk: Chunk, part: "input" | "weight"): void {
    this.#parts.finished(chunk, part);
  }

  #build(
    stage: Stage,
    input: Stream | null,
    batch: BatchTensors,
    pass: Pass,
  ): { readonly output: Stream | null; readonly losses: PartLosses } {
    const from = input ?? stage.embed(batch.ids, pass);
    invariant(from !== null, "the first stage has the embedding, the others an input");
    const { stream, reports } = stage.forward(from, pass);
    if (stage.head === null) return { output: stream, losses: { main: null, mtp: [], reports } };
    const finished = { ...stage.finish(stream, stage.head, pass), reports };
    return { output: null, losses: lossesOf(finished, stage.head, batch, pass, this.#parts.scales) };
  }
}

/** Chunks of one module and way that have a tag each; those under way at once are far fewer. */
const TAGS = 64;

/**
 * The tags of a chunk's exchanges with the ranks that share its experts: other ones for every chunk that may be under
 * way with it, and for the way back. The pieces of a pair come by turns, and messages of one tag would be mixed up where
 * two ranks took the turns otherwise. The micro-batch tells the direction.
 */
export function exchangeTags({ module, microBatch }: Chunk): ExchangeTags {
  const use = 2 * (2 * (microBatch % TAGS) + module);
  return { forward: use, backward: use + 1 };
}
