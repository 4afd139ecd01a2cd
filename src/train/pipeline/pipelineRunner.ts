/**
 * One optimizer step of a rank in a pipeline: its chunks by the plan, then the same sums, record and update as ever.
 *
 * All micro-batches lie in memory of their own, so that the whole step, messages included, is one recording.
 */
import { type ParameterFactory, type Pass, updateRouterBias } from "../../model/index.ts";
import {
  type Chunk,
  type Communicator,
  type PipelineLayout,
  type PipelinePlan,
  planSchedule,
} from "../../parallel/index.ts";
import {
  add,
  copyInto,
  fill,
  HostScalar,
  normOfPartials,
  partialSquares,
  type QueueDevice,
  Recording,
  squarePartials,
} from "../../tensor/index.ts";
import { type BatchTensors, disposeBatch, makeBatch, type Rows, writeBatch } from "../batch.ts";
import type { ExpertGroup } from "../expertGroup.ts";
import { gradientPlaces } from "../gradientPlaces.ts";
import type { Optimizer } from "../optimizer.ts";
import type { Runner, StepSettings } from "../rankSession.ts";
import type { ScheduledValues } from "../schedule.ts";
import {
  type HostScales,
  makeScales,
  planMicroBatches,
  recordOf,
  type StepRecord,
  setScales,
  sum,
  weighLosses,
} from "../stepRecord.ts";
import { StepTotals } from "../stepTotals.ts";
import { PipelineExecutor } from "./executor.ts";
import type { Module } from "./modules.ts";
import { SharedEmbedding } from "./sharedEmbedding.ts";
import { StageModel } from "./stageModel.ts";

export interface PipelineParts extends StepSettings {
  readonly device: QueueDevice;
  readonly world: Communicator;
  /** The ranks of this rank's pipeline, in its order. */
  readonly pipeline: Communicator;
  readonly layout: PipelineLayout;
  /** The ranks that share the experts of these stages; null where each has all. */
  readonly experts: ExpertGroup | null;
  readonly zero1: boolean;
  readonly modules: readonly Module[];
  /** Names and shapes of the whole model, of which this rank holds a part. */
  readonly whole: ParameterFactory;
  readonly optimizer: Optimizer;
  readonly pass: Pick<Pass, "rope" | "precision">;
  readonly mtpDepth: number;
}

/** By module and part of the backward: chunks that are done. */
type Counts = Map<string, number>;

interface StepAtWork {
  readonly plan: PipelinePlan;
  readonly done: Counts;
  readonly embedding: SharedEmbedding;
}

export class PipelineRunner implements Runner {
  readonly parts: PipelineParts;
  readonly #totals: StepTotals;
  readonly #batches: readonly { readonly tensors: BatchTensors; readonly balanceAlpha: HostScalar }[];
  readonly #scales: HostScales;
  readonly #gamma = new HostScalar();
  readonly #wantsToStop = new HostScalar();
  /** By the number of micro-batches: a batch ramp changes it. */
  readonly #steps: Map<number, Recording> = new Map();
  readonly #clearGradients: Recording;
  readonly #finish: Recording;
  readonly #update: Recording;
  #hasZeroGradients = false;

  constructor(parts: PipelineParts) {
    const { device, whole, layout, mtpDepth } = parts;
    this.parts = parts;
    const microBatches = parts.batchRows / parts.microBatchRows;
    const dtype = parts.pass.precision.router;
    this.#totals = new StepTotals(device, whole.buffers, { microBatches, mtpDepth, dtype });
    const sizes = { rows: parts.microBatchRows, rowLength: parts.rowLength, mtpDepth };
    this.#batches = Array.from({ length: microBatches / layout.dp }, () => ({
      tensors: makeBatch(device, { ...sizes, masksDocuments: parts.documentEnd !== null }),
      balanceAlpha: new HostScalar(),
    }));
    this.#scales = makeScales(mtpDepth);
    this.#clearGradients = new Recording(device, () => this.#enqueueClearGradients());
    this.#finish = new Recording(device, () => this.#enqueueFinish());
    this.#update = new Recording(device, () => this.#enqueueUpdate());
  }

  /** As StepRunner's: every rank is given the rows of the whole step. */
  async compute(rows: Rows, scheduled: ScheduledValues, wantsToStop: boolean = false): Promise<StepRecord> {
    const { microBatchRows, layout, balanceAlpha } = this.parts;
    const plans = planMicroBatches(rows, microBatchRows, this.parts);
    const weights = weighLosses(plans, scheduled.mtpWeight);
    setScales(this.#scales, weights);
    this.#wantsToStop.value = wantsToStop && this.parts.world.rank === 0 ? 1 : 0;
    this.#totals.clearLoads();
    const sequences = sum(plans.map((plan) => plan.sequences));
    const count = plans.length / layout.dp;
    for (const [i, plan] of plans.slice(this.#first(count), this.#first(count) + count).entries()) {
      const { tensors, balanceAlpha: alpha } = this.#batches[i]!;
      writeBatch(tensors, plan);
      alpha.value = (balanceAlpha * plan.sequences) / sequences;
    }
    if (!this.#hasZeroGradients) this.#clearGradients.run();
    this.#hasZeroGradients = false;
    this.#stepOf(count).run();
    this.#finish.run();
    return recordOf(await this.#totals.read(plans.length), weights);
  }

  commit(scheduled: ScheduledValues): void {
    this.parts.optimizer.advance(scheduled.learningRate);
    this.#gamma.value = scheduled.gamma;
    this.#update.run();
    this.#hasZeroGradients = true;
  }

  /** Chunks of several micro-batches are in flight. */
  get cachedBytes(): number {
    return 0;
  }

  get treeBytes(): number {
    return sum(this.parts.modules.map(({ trees }) => trees.input.bytes + trees.weight.bytes));
  }

  dispose(): void {
    this.#totals.dispose();
    for (const { tensors } of this.#batches) disposeBatch(tensors);
  }

  /** Number in the whole step of this pipeline's first micro-batch. */
  #first(count: number): number {
    return (this.parts.world.rank % this.parts.layout.dp) * count;
  }

  #stepOf(microBatches: number): Recording {
    const known = this.#steps.get(microBatches);
    if (known !== undefined) return known;
    const { device, layout, pipeline } = this.parts;
    const plan = planSchedule(layout.schedule, { ranks: pipeline.size, microBatches });
    const step = new Recording(device, () => this.#enqueueStep(plan));
    this.#steps.set(microBatches, step);
    return step;
  }

  #enqueueStep(plan: PipelinePlan): void {
    const { device, modules, pipeline, pass, recomputes, experts } = this.parts;
    this.#totals.clearRows();
    const first = this.#first(plan.microBatches);
    const done: Counts = new Map();
    const embedding = new SharedEmbedding(plan, pipeline);
    const model = new StageModel({
      device,
      stages: modules.map(({ stage }) => stage),
      batches: this.#batches,
      ...pass,
      recomputes,
      scales: this.#scales,
      dispatch: experts?.dispatch ?? null,
      record: (microBatch, losses) => this.#totals.addPart(first + microBatch, losses),
      finished: (chunk, part) => this.#endChunk(chunk, part, { plan, done, embedding }),
    });
    new PipelineExecutor(plan, pipeline, model).enqueue();
    embedding.settle();
  }

  /** The last chunk of a block: embedding and head get MTP's part, and the block's sum goes into the tree. */
  #endChunk(chunk: Chunk, part: "input" | "weight", { plan, done, embedding }: StepAtWork): void {
    const { layout, gradientShards, modules, mtpDepth } = this.parts;
    const key = `${chunk.module} ${part}`;
    const count = (done.get(key) ?? 0) + 1;
    done.set(key, count);
    const blockLength = (plan.microBatches * layout.dp) / gradientShards;
    if (count % blockLength !== 0) return;
    const { stage, factory, trees } = modules[chunk.module]!;
    for (const { owner, alias } of factory.tied) {
      const isHead = owner === stage.head?.lmHead;
      if (isHead !== (part === "input")) continue;
      if (isHead) this.#addHere(owner.grad!, alias.grad!);
      else embedding.send(alias, chunk);
    }
    if (part === "weight" && stage.embedTokens !== null)
      for (let k = 0; k < mtpDepth; k++) embedding.receive(stage.embedTokens, chunk);
    trees[part].endBlock(count / blockLength - 1);
  }

  #addHere(own: Parameters<typeof add>[0], more: Parameters<typeof add>[0]): void {
    using _scope = this.parts.device.scope();
    copyInto(add(own, more), own);
    fill(more, 0);
  }

  #enqueueFinish(): void {
    const { device, world, modules, whole, experts } = this.parts;
    device.mark("sums over ranks");
    fill(this.#totals.stop, this.#wantsToStop);
    for (const { dataParallel } of this.#inOrder) dataParallel.reduceGradients();
    const owned = new Map(
      modules.flatMap(({ factory, dataParallel }) =>
        factory.parameters.flatMap(({ path, grad }, i) =>
          dataParallel.owns(i) ? [[path, grad] as const] : [],
        ),
      ),
    );
    const grads = whole.parameters.flatMap((parameter) =>
      gradientPlaces(whole, parameter, owned.get(parameter.path) ?? null, experts?.share.first),
    );
    const partials = squarePartials(device, grads.length, this.#totals.norm.dtype);
    partialSquares(grads, partials);
    this.#totals.gather(world, partials);
    copyInto(normOfPartials(partials), this.#totals.norm);
  }

  #enqueueUpdate(): void {
    const { device, optimizer, zero1, modules } = this.parts;
    device.mark("update");
    if (!zero1) for (const { dataParallel } of this.#inOrder) dataParallel.spreadGradients();
    optimizer.update(this.#totals.norm);
    if (zero1) for (const { dataParallel } of this.#inOrder) dataParallel.spreadWeights();
    for (const { factory } of modules)
      for (const router of factory.buffers)
        updateRouterBias(router, this.#totals.load(router.path), this.#gamma);
  }

  /** Both ranks of a pair must come to the same stage first. */
  get #inOrder(): readonly Module[] {
    return [...this.parts.modules].sort((a, b) => a.index - b.index);
  }

  #enqueueClearGradients(): void {
    for (const { factory } of this.parts.modules) {
      for (const { grad } of factory.parameters) fill(grad!, 0);
      for (const { alias } of factory.tied) fill(alias.grad!, 0);
      for (const { bySender } of factory.experts) for (const { grad } of bySender.slice(1)) fill(grad!, 0);
    }
  }
}
