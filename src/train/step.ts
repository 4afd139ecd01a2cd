/**
 * One optimizer step: forward and backward over the step's rows, one small record read back, then the update.
 *
 * Everything is enqueued without waiting; JavaScript waits once, for the record (losses, gradient norm, expert
 * load), because whether the update is taken depends on it. The router bias moves here, after the weights.
 */
import {
  type ModelBuffer,
  type ParameterFactory,
  type Pass,
  type Precision,
  type Transformer,
  updateRouterBias,
} from "../model/index.ts";
import {
  add,
  axpy,
  copyInto,
  countPositive,
  expertLoad,
  fill,
  globalGradNorm,
  type QueueDevice,
  type RopeTable,
  reduceSum,
  Tape,
  type Tensor,
} from "../tensor/index.ts";
import { type BatchPlan, planBatch, type Rows, uploadBatch } from "./batch.ts";
import { GradientTree } from "./gradientTree.ts";
import { buildLosses, type Losses, seedLosses } from "./losses.ts";
import type { Optimizer } from "./optimizer.ts";
import type { ScheduledValues } from "./schedule.ts";

/** What a step is made of; built once per run. */
export interface StepParts {
  readonly device: QueueDevice;
  readonly model: Transformer;
  readonly factory: ParameterFactory;
  readonly optimizer: Optimizer;
  readonly rope: RopeTable;
  readonly precision: Precision;
  readonly microBatchRows: number;
  readonly gradientShards: number;
  readonly balanceAlpha: number;
  readonly padId: number;
  readonly documentEnd: number | null;
}

/** Read back once per step. Losses are means in nats per target. */
export interface StepRecord {
  readonly mainLoss: number;
  readonly mtpLosses: readonly number[];
  readonly balanceLoss: number;
  /** L = main + lambda / D * sum of MTP + balance. */
  readonly loss: number;
  readonly gradNorm: number;
  /** Share of MTP targets that were the most likely token, per module. */
  readonly mtpAccuracy: readonly number[];
  /** Tokens per expert, per MoE layer, MTP's last. */
  readonly expertLoad: readonly Int32Array[];
  /** Main targets. */
  readonly targets: number;
}

export class StepRunner {
  readonly parts: StepParts;
  readonly #routers: readonly ModelBuffer[];
  /** Accumulators of the step, read back as the record. */
  readonly #main: Tensor;
  readonly #balance: Tensor;
  readonly #mtp: readonly { readonly loss: Tensor; readonly hits: Tensor }[];
  readonly #loads: readonly Tensor[];
  readonly #norm: Tensor;

  constructor(parts: StepParts) {
    this.parts = parts;
    const scalar = (): Tensor => parts.device.temporary([1], parts.precision.router);
    this.#main = scalar();
    this.#balance = scalar();
    this.#norm = scalar();
    this.#mtp = parts.model.mtp.map(() => ({ loss: scalar(), hits: scalar() }));
    this.#routers = parts.factory.buffers;
    this.#loads = this.#routers.map((router) => parts.device.temporary(router.value.shape, "i32"));
  }

  /** Forward and backward; resolves with the record. The update waits for `commit`. */
  async compute(rows: Rows, scheduled: ScheduledValues): Promise<StepRecord> {
    const plans = this.#plan(rows);
    const weights = {
      mainCount: sum(plans.map((plan) => plan.valid)),
      mtpCounts: this.#mtp.map((_, k) => sum(plans.map((plan) => plan.mtp[k]!.valid))),
      mtpWeight: scheduled.mtpWeight,
    };
    this.#reset();
    const tree = new GradientTree(this.parts.device, this.parts.optimizer.parameters);
    const blockLength = plans.length / this.parts.gradientShards;
    const sequences = sum(plans.map((plan) => plan.sequences));
    for (const [i, plan] of plans.entries()) {
      // Each balance loss is a mean over its micro-batch; masked documents make unequal numbers of sequences.
      this.#accumulate(plan, weights, (this.parts.balanceAlpha * plan.sequences) / sequences);
      if (this.parts.gradientShards > 1 && (i + 1) % blockLength === 0) {
        this.#addTied();
        tree.addBlock();
      }
    }
    if (this.parts.gradientShards > 1) tree.finish();
    else this.#addTied();
    return this.#record(weights, scheduled);
  }

  /** Takes the step: weights, then router bias. */
  commit(scheduled: ScheduledValues): void {
    this.parts.optimizer.update(this.#norm, scheduled.learningRate);
    for (const [i, router] of this.#routers.entries())
      updateRouterBias(router, this.#loads[i]!, scheduled.gamma);
  }

  dispose(): void {
    for (const tensor of [this.#main, this.#balance, this.#norm, ...this.#loads]) tensor.dispose();
    for (const { loss, hits } of this.#mtp) {
      loss.dispose();
      hits.dispose();
    }
  }

  #plan(rows: Rows): readonly BatchPlan[] {
    const { microBatchRows, padId, documentEnd, model } = this.parts;
    const width = rows.rowLength + 1;
    const options = { mtpDepth: model.mtp.length, padId, documentEnd };
    return Array.from({ length: rows.count / microBatchRows }, (_, i) => {
      const tokens = rows.tokens.subarray(i * microBatchRows * width, (i + 1) * microBatchRows * width);
      return planBatch({ tokens, count: microBatchRows, rowLength: rows.rowLength }, options);
    });
  }

  #reset(): void {
    const { factory } = this.parts;
    for (const { grad } of factory.parameters) if (grad !== null) fill(grad, 0);
    for (const { alias } of factory.tied) if (alias.grad !== null) fill(alias.grad, 0);
    for (const tensor of [this.#main, this.#balance]) fill(tensor, 0);
    for (const { loss, hits } of this.#mtp) {
      fill(loss, 0);
      fill(hits, 0);
    }
    for (const load of this.#loads) load.write(new Int32Array(load.size));
  }

  #accumulate(plan: BatchPlan, weights: Parameters<typeof buildLosses>[3], balanceAlpha: number): void {
    const { device, model, rope, precision } = this.parts;
    using tape = new Tape(device);
    // The forward scope ends before the backward pass, so that what only the tape holds is freed as it is used up.
    {
      using _scope = device.scope();
      const batch = uploadBatch(device, plan);
      const pass: Pass = {
        positions: batch.positions,
        seqOffsets: batch.seqOffsets,
        rope,
        precision,
        cache: null,
        balanceAlpha,
      };
      const losses = device.withTape(tape, () => buildLosses(model, batch, pass, weights));
      this.#measure(losses);
      seedLosses(tape, losses);
    }
    tape.backward();
  }

  #measure({ main, mtp, reports }: Losses): void {
    const addTo = (total: Tensor, part: Tensor): void => axpy(part, total, 1);
    addTo(this.#main, reduceSum(main.loss, 1));
    mtp.forEach(({ loss, hits }, k) => {
      addTo(this.#mtp[k]!.loss, reduceSum(loss, 1));
      addTo(this.#mtp[k]!.hits, countPositive(hits));
    });
    for (const { balanceLoss, plan, router } of reports) {
      if (balanceLoss !== null) addTo(this.#balance, balanceLoss);
      expertLoad(plan, this.#loads[this.#routers.indexOf(router.bias)]!);
    }
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

  async #record(
    weights: { readonly mainCount: number; readonly mtpCounts: readonly number[] },
    { mtpWeight }: ScheduledValues,
  ): Promise<StepRecord> {
    const grads = this.parts.optimizer.parameters.map((parameter) => parameter.grad!);
    let reads: Promise<readonly (readonly number[])[]>;
    {
      using _scope = this.parts.device.scope();
      copyInto(globalGradNorm(grads), this.#norm);
      const scalars = [
        this.#main,
        this.#balance,
        this.#norm,
        ...this.#mtp.flatMap(({ loss, hits }) => [loss, hits]),
      ];
      reads = Promise.all(
        [...scalars, ...this.#loads].map(async (tensor) => Array.from(await tensor.read())),
      );
    }
    const values = await reads;
    const scalar = (index: number): number => values[index]![0]!;
    const mtpLosses = weights.mtpCounts.map((count, k) => scalar(3 + 2 * k) / Math.max(1, count));
    const mainLoss = scalar(0) / Math.max(1, weights.mainCount);
    const balanceLoss = scalar(1);
    return {
      mainLoss,
      mtpLosses,
      balanceLoss,
      loss: mainLoss + (mtpWeight * sum(mtpLosses)) / Math.max(1, mtpLosses.length) + balanceLoss,
      gradNorm: scalar(2),
      mtpAccuracy: weights.mtpCounts.map((count, k) => scalar(4 + 2 * k) / Math.max(1, count)),
      expertLoad: values.slice(3 + 2 * mtpLosses.length).map((load) => Int32Array.from(load)),
      targets: weights.mainCount,
    };
  }
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
