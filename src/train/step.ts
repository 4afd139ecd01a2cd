/**
 * One optimizer step: forward and backward over the step's rows, one small record read back, then the update.
 *
 * Everything is enqueued without waiting; JavaScript waits once, for the record (losses, gradient norm, expert
 * load), because whether the update is taken depends on it. The router bias moves here, after the weights.
 * What is enqueued is the same in every step but for numbers in host scalars, so it is recorded once and replayed.
 */
import {
  type ExpertDispatch,
  type ParameterFactory,
  type Pass,
  type Precision,
  type Transformer,
  updateRouterBias,
} from "../model/index.ts";
import {
  add,
  copyInto,
  fill,
  HostScalar,
  normOfPartials,
  type Parameter,
  partialSquares,
  type QueueDevice,
  Recording,
  type RopeTable,
  squarePartials,
  Tape,
} from "../tensor/index.ts";
import {
  type BatchPlan,
  type BatchTensors,
  disposeBatch,
  makeBatch,
  type Rows,
  writeBatch,
} from "./batch.ts";
import type { DataParallel } from "./dataParallel.ts";
import { gradientPlaces } from "./gradientPlaces.ts";
import { GradientTree } from "./gradientTree.ts";
import { buildLosses, seedLosses } from "./losses.ts";
import type { Optimizer } from "./optimizer.ts";
import type { StepSettings } from "./rankSession.ts";
import type { ScheduledValues } from "./schedule.ts";
import {
  type HostScales,
  makeScales,
  planMicroBatches,
  recordOf,
  type StepRecord,
  setScales,
  sum,
  weighLosses,
} from "./stepRecord.ts";
import { StepTotals } from "./stepTotals.ts";

/** What a step is made of; built once per run. */
export interface StepParts extends StepSettings {
  readonly device: QueueDevice;
  readonly model: Transformer;
  readonly factory: ParameterFactory;
  readonly optimizer: Optimizer;
  /** Null for one rank alone. */
  readonly dataParallel: DataParallel | null;
  /** How tokens reach experts of other ranks; null where this one has all. */
  readonly dispatch: ExpertDispatch | null;
  readonly rope: RopeTable;
  readonly precision: Precision;
}

export class StepRunner {
  readonly parts: StepParts;
  readonly #totals: StepTotals;
  /** The micro-batch that is computed next, and what is new about it besides its tokens. */
  readonly #batch: BatchTensors;
  readonly #scales: HostScales;
  readonly #balanceAlpha = new HostScalar();
  readonly #gamma = new HostScalar();
  readonly #wantsToStop = new HostScalar();
  readonly #tree: GradientTree;
  readonly #clearRows: Recording;
  readonly #clearGradients: Recording;
  readonly #microBatch: Recording;
  readonly #endBlocks: readonly Recording[];
  readonly #finish: Recording;
  readonly #update: Recording;
  #cachedBytes = 0;
  /** The last update used the gradients up; a step that was skipped, and the first, must clear them. */
  #hasZeroGradients = false;

  constructor(parts: StepParts) {
    const { device, model, factory, precision } = parts;
    const mtpDepth = model.mtp.length;
    this.parts = parts;
    this.#totals = new StepTotals(device, factory.buffers, {
      microBatches: parts.batchRows / parts.microBatchRows,
      mtpDepth,
      dtype: precision.router,
    });
    this.#batch = makeBatch(device, {
      rows: parts.microBatchRows,
      rowLength: parts.rowLength,
      mtpDepth,
      masksDocuments: parts.documentEnd !== null,
    });
    this.#scales = makeScales(mtpDepth);
    const blocks = parts.gradientShards / this.#ranks.size;
    this.#tree = new GradientTree(device, gradientOwners(factory), blocks);
    this.#clearRows = new Recording(device, () => this.#totals.clearRows());
    this.#clearGradients = new Recording(device, () => this.#enqueueClearGradients());
    this.#microBatch = new Recording(device, () => this.#enqueueMicroBatch());
    this.#endBlocks = Array.from(
      { length: blocks },
      (_, block) => new Recording(device, () => this.#enqueueEndBlock(block)),
    );
    this.#finish = new Recording(device, () => this.#enqueueFinish());
    this.#update = new Recording(device, () => this.#enqueueUpdate());
  }

  /**
   * Forward and backward; resolves with the record. The update waits for `commit`.
   *
   * @param rows         of the whole step: each rank computes its share of them
   * @param wantsToStop  told to all ranks, if it is the first that says so
   */
  async compute(rows: Rows, scheduled: ScheduledValues, wantsToStop: boolean = false): Promise<StepRecord> {
    const { microBatchRows, model } = this.parts;
    const plans = planMicroBatches(rows, microBatchRows, { ...this.parts, mtpDepth: model.mtp.length });
    const weights = weighLosses(plans, scheduled.mtpWeight);
    setScales(this.#scales, weights);
    this.#wantsToStop.value = wantsToStop && this.#ranks.rank === 0 ? 1 : 0;
    this.#totals.clearLoads();
    this.#clearRows.run();
    if (!this.#hasZeroGradients) this.#clearGradients.run();
    this.#hasZeroGradients = false;
    this.#accumulate(plans);
    this.#finish.run();
    return recordOf(await this.#totals.read(plans.length), weights);
  }

  /** Takes the step: weights, then router bias. */
  commit(scheduled: ScheduledValues): void {
    this.parts.optimizer.advance(scheduled.learningRate);
    this.#gamma.value = scheduled.gamma;
    this.#update.run();
    this.#hasZeroGradients = true;
  }

  /** What the way back of a micro-batch finds in memory: all that its forward pass left there. */
  get cachedBytes(): number {
    return this.#cachedBytes;
  }

  /** Of the partial sums of gradients that wait for their other half. */
  get treeBytes(): number {
    return this.#tree.bytes;
  }

  dispose(): void {
    this.#totals.dispose();
    this.#tree.dispose();
    disposeBatch(this.#batch);
  }

  /** Adds up the gradients of this rank's micro-batches, one after another in a block, the blocks by the tree. */
  #accumulate(plans: readonly BatchPlan[]): void {
    const { gradientShards, balanceAlpha } = this.parts;
    const { rank, size } = this.#ranks;
    const blockLength = plans.length / gradientShards;
    const sequences = sum(plans.map((plan) => plan.sequences));
    const first = (rank * plans.length) / size;
    for (const [i, plan] of plans.slice(first, first + plans.length / size).entries()) {
      writeBatch(this.#batch, plan);
      // Each balance loss is a mean over its micro-batch; masked documents make unequal numbers of sequences.
      this.#balanceAlpha.value = (balanceAlpha * plan.sequences) / sequences;
      this.#totals.begin(first + i);
      this.#microBatch.run();
      if ((i + 1) % blockLength === 0) this.#endBlocks[Math.floor(i / blockLength)]!.run();
    }
  }

  get #ranks(): { readonly rank: number; readonly size: number } {
    return this.parts.dataParallel?.communicator ?? { rank: 0, size: 1 };
  }

  #enqueueEndBlock(block: number): void {
    this.#addTied();
    this.#tree.endBlock(block);
  }

  /** What needs the gradients of all ranks: their norm, and with it the record. */
  #enqueueFinish(): void {
    const { device, factory, dataParallel } = this.parts;
    device.mark("sums over ranks");
    fill(this.#totals.stop, this.#wantsToStop);
    dataParallel?.reduceGradients();
    const grads = factory.parameters.flatMap((parameter, i) =>
      gradientPlaces(
        factory,
        parameter,
        dataParallel === null || dataParallel.owns(i) ? parameter.grad : null,
      ),
    );
    const partials = squarePartials(device, grads.length, this.#totals.norm.dtype);
    partialSquares(grads, partials);
    if (dataParallel !== null) this.#totals.gather(dataParallel.communicator, partials);
    copyInto(normOfPartials(partials), this.#totals.norm);
  }

  #enqueueClearGradients(): void {
    const { factory } = this.parts;
    for (const { grad } of factory.parameters) if (grad !== null) fill(grad, 0);
    for (const { alias } of factory.tied) if (alias.grad !== null) fill(alias.grad, 0);
    for (const { bySender } of factory.experts) for (const { grad } of bySender.slice(1)) fill(grad!, 0);
  }

  #enqueueMicroBatch(): void {
    const { device, model, rope, precision, recomputes, dispatch } = this.parts;
    const standing = device.arena.liveBytes;
    device.mark("micro-batch");
    using tape = new Tape(device, { recomputes });
    // The forward scope ends before the backward pass, so that what only the tape holds is freed as it is used up.
    {
      using _scope = device.scope();
      const { positions, seqOffsets } = this.#batch;
      const balanceAlpha = this.#balanceAlpha;
      const pass: Pass = { positions, seqOffsets, rope, precision, cache: null, balanceAlpha, dispatch };
      const losses = device.withTape(tape, () => buildLosses(model, this.#batch, pass, this.#scales));
      this.#totals.add(losses);
      seedLosses(tape, losses);
    }
    this.#cachedBytes = device.arena.liveBytes - standing;
    tape.backward();
  }

  #enqueueUpdate(): void {
    const { device, optimizer, dataParallel } = this.parts;
    device.mark("update");
    if (dataParallel?.zero1 === false) dataParallel.spreadGradients();
    optimizer.update(this.#totals.norm);
    if (dataParallel?.zero1 === true) dataParallel.spreadWeights();
    for (const router of this.parts.factory.buffers)
      updateRouterBias(router, this.#totals.load(router.path), this.#gamma);
  }

  /** Embedding and head: the main model's gradient plus MTP's, added once. */
  #addTied(): void {
    for (const { owner, alias } of this.parts.factory.tied) {
      if (owner.grad === null || alias.grad === null) continue;
      using _scope = this.parts.device.scope();
      copyInto(add(owner.grad, alias.grad), owner.grad);
      fill(alias.grad, 0);
    }
  }
}

/** All whose gradients are summed over the blocks: the parameters, and the experts' once more for each other sender. */
function gradientOwners({ parameters, experts }: ParameterFactory): readonly Parameter[] {
  return [...parameters, ...experts.flatMap(({ bySender }) => bySender.slice(1))];
}
