/**
 * What a step adds up on the queue and JavaScript reads once: losses, hits, gradient norm, expert load.
 *
 * Each micro-batch has a row of its own for its sums, and the rows are added here, in their order, in float64: so the
 * record does not depend on which rank computed which micro-batch. All floats lie in one tensor and all counts in
 * another, so that a step's record is two small reads.
 */
import type { Communicator, Receive, Send } from "../parallel/index.ts";
import {
  addCounts,
  axpy,
  copyIntoRow,
  countPositive,
  type Dtype,
  expertLoad,
  fill,
  HostScalar,
  type QueueDevice,
  reduceSum,
  type Tensor,
} from "../tensor/index.ts";
import type { PartLosses } from "./losses.ts";

/** The sums as they are read, in nats and counts over the whole step. */
export interface Totals {
  readonly main: number;
  readonly balance: number;
  readonly gradNorm: number;
  readonly isAskedToStop: boolean;
  /** Per MTP module. */
  readonly mtp: readonly { readonly nats: number; readonly hits: number }[];
  /** Tokens per expert, per MoE layer, MTP's last. */
  readonly expertLoad: readonly Int32Array[];
}

export interface TotalsSizes {
  /** The most that a step has. */
  readonly microBatches: number;
  readonly mtpDepth: number;
  readonly dtype: Dtype;
}

export class StepTotals {
  /** Paths of the router biases of the whole model, in its order. */
  readonly #routers: readonly string[];
  readonly #mtpDepth: number;
  /** Of the micro-batch at work: main loss, loss and hits of each MTP module, then the balance loss of each router. */
  readonly #sums: Tensor;
  /** [1 + micro-batches, sums]: gradient norm and the wish to stop lead the first row, then come the sums of each micro-batch. */
  readonly #rows: Tensor;
  /** [layers, E] i32 */
  readonly #loads: Tensor;
  readonly #row: HostScalar = new HostScalar();

  /** @param routers  the router biases of the whole model, whatever part of it this rank computes */
  constructor(
    device: QueueDevice,
    routers: readonly { readonly path: string; readonly value: { readonly size: number } }[],
    sizes: TotalsSizes,
  ) {
    const { microBatches, mtpDepth, dtype } = sizes;
    const width = Math.max(2, 1 + 2 * mtpDepth + routers.length);
    this.#routers = routers.map(({ path }) => path);
    this.#mtpDepth = mtpDepth;
    this.#sums = device.temporary([width], dtype);
    this.#rows = device.temporary([1 + microBatches, width], dtype);
    this.#loads = device.temporary([routers.length, routers[0]?.value.size ?? 0], "i32");
  }

  /** [1]: the norm of all gradients. */
  get norm(): Tensor {
    return this.#rows.reshape(-1).rows(0, 1);
  }

  /** [1]: greater than 0 if the first rank was asked to stop. */
  get stop(): Tensor {
    return this.#rows.reshape(-1).rows(1, 2);
  }

  /** [E] i32: tokens per expert of the MoE layer that has this router bias. */
  load(router: string): Tensor {
    const layer = this.#routers.indexOf(router);
    return this.#loads.rows(layer, layer + 1).reshape(-1);
  }

  /** Sets the counts to zero: a write, so it comes before what is recorded. */
  clearLoads(): void {
    this.#loads.write(new Int32Array(this.#loads.size));
  }

  /** Sets all rows to zero: where ranks fill some each, the others' must hold nothing. */
  clearRows(): void {
    fill(this.#rows, 0);
  }

  /** Names the micro-batch whose sums `add` puts away, also when it is replayed. */
  begin(microBatch: number): void {
    this.#row.value = 1 + microBatch;
  }

  /** Puts away the losses of the micro-batch that `begin` has named. */
  add(losses: PartLosses): void {
    this.#sumUp(losses);
    copyIntoRow(this.#sums, this.#rows, this.#row);
  }

  /** Adds to a micro-batch's row what a part of the model says of it. */
  addPart(microBatch: number, losses: PartLosses): void {
    this.#sumUp(losses);
    axpy(this.#sums, this.#rows.rows(1 + microBatch, 2 + microBatch).reshape(-1), 1);
  }

  #sumUp({ main, mtp, reports }: PartLosses): void {
    fill(this.#sums, 0);
    if (main !== null) axpy(reduceSum(main.loss, 1), this.#sum(0), 1);
    mtp.forEach(({ loss, hits }, k) => {
      axpy(reduceSum(loss, 1), this.#sum(1 + 2 * k), 1);
      axpy(countPositive(hits), this.#sum(2 + 2 * k), 1);
    });
    for (const { balanceLoss, plan, router } of reports) {
      const { path } = router.bias;
      if (balanceLoss !== null) axpy(balanceLoss, this.#balanceSum(path), 1);
      expertLoad(plan, this.load(path));
    }
  }

  /**
   * Gives every rank the sums of all micro-batches, the partial squares of all gradients, the load over the whole
   * batch, and what the first rank says about stopping.
   *
   * @param partials  the squares of the gradients that this rank owns, zero elsewhere; complete afterwards
   */
  gather(communicator: Communicator, partials: Tensor): void {
    const { rank, size, device } = communicator;
    using _scope = device.scope();
    const mine = [this.#rows, partials, this.#loads];
    const sends: Send[] = [];
    const receives: Receive[] = [];
    const others: Tensor[][] = [];
    for (let peer = 0; peer < size; peer++) {
      if (peer === rank) continue;
      const theirs = mine.map(({ shape, dtype }) => device.empty(shape, dtype));
      others.push(theirs);
      for (const x of mine) sends.push({ to: peer, x });
      for (const y of theirs) receives.push({ from: peer, y });
    }
    communicator.exchange(sends, receives).wait();
    for (const [rows, squares, loads] of others) {
      // Each float has one owner and is zero elsewhere: the sum rounds nothing.
      axpy(rows!, this.#rows, 1);
      axpy(squares!, partials, 1);
      addCounts(loads!, this.#loads);
    }
  }

  /** @param microBatches  of the step: under a batch ramp there are fewer than there is room for */
  async read(microBatches: number): Promise<Totals> {
    const rows = this.#rows.rows(0, 1 + microBatches);
    const [floats, loads] = await Promise.all([rows.read(), this.#loads.read()]);
    const width = this.#sums.size;
    const total = (column: number): number => {
      let sum = 0;
      for (let row = 1; row <= microBatches; row++) sum += floats[row * width + column]!;
      return sum;
    };
    const experts = this.#loads.dim(-1);
    return {
      main: total(0),
      balance: this.#routers.reduce((sum, _, i) => sum + total(1 + 2 * this.#mtpDepth + i), 0),
      gradNorm: floats[0]!,
      isAskedToStop: floats[1]! > 0,
      mtp: Array.from({ length: this.#mtpDepth }, (_, k) => ({
        nats: total(1 + 2 * k),
        hits: total(2 + 2 * k),
      })),
      expertLoad: this.#routers.map((_, i) =>
        Int32Array.from(loads.subarray(i * experts, (i + 1) * experts)),
      ),
    };
  }

  dispose(): void {
    this.#sums.dispose();
    this.#rows.dispose();
    this.#loads.dispose();
  }

  #balanceSum(router: string): Tensor {
    return this.#sum(1 + 2 * this.#mtpDepth + this.#routers.indexOf(router));
  }

  #sum(index: number): Tensor {
    return this.#sums.rows(index, index + 1);
  }
}
