/**
 * What a step adds up on the queue and JavaScript reads once: losses, hits, gradient norm, expert load.
 *
 * Each micro-batch has a row of its own for its sums, and the rows are added here, in their order, in float64: so the
 * record does not depend on which rank computed which micro-batch. All floats lie in one tensor and all counts in
 * another, so that a step's record is two small reads.
 */
import type { ModelBuffer } from "../model/index.ts";
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
import type { Losses } from "./losses.ts";

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
  readonly #routers: readonly ModelBuffer[];
  readonly #mtpDepth: number;
  /** Of the micro-batch at work: main loss, balance loss, then loss and hits of each MTP module. */
  readonly #sums: Tensor;
  /** [1 + micro-batches, sums]: gradient norm and the wish to stop lead the first row, then come the sums of each micro-batch. */
  readonly #rows: Tensor;
  /** [layers, E] i32 */
  readonly #loads: Tensor;
  readonly #row: HostScalar = new HostScalar();

  constructor(device: QueueDevice, routers: readonly ModelBuffer[], sizes: TotalsSizes) {
    const { microBatches, mtpDepth, dtype } = sizes;
    const width = 2 + 2 * mtpDepth;
    this.#routers = routers;
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

  /** [E] i32: tokens per expert of one MoE layer. */
  load(layer: number): Tensor {
    return this.#loads.rows(layer, layer + 1).reshape(-1);
  }

  /** Sets the counts to zero: a write, so it comes before what is recorded. */
  clearLoads(): void {
    this.#loads.write(new Int32Array(this.#loads.size));
  }

  /** Names the micro-batch whose sums `add` puts away, also when it is replayed. */
  begin(microBatch: number): void {
    this.#row.value = 1 + microBatch;
  }

  /** Puts away the losses of a micro-batch. */
  add({ main, mtp, reports }: Losses): void {
    fill(this.#sums, 0);
    axpy(reduceSum(main.loss, 1), this.#sum(0), 1);
    mtp.forEach(({ loss, hits }, k) => {
      axpy(reduceSum(loss, 1), this.#sum(2 + 2 * k), 1);
      axpy(countPositive(hits), this.#sum(3 + 2 * k), 1);
    });
    for (const { balanceLoss, plan, router } of reports) {
      if (balanceLoss !== null) axpy(balanceLoss, this.#sum(1), 1);
      expertLoad(plan, this.load(this.#routers.indexOf(router.bias)));
    }
    copyIntoRow(this.#sums, this.#rows, this.#row);
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
    const share = (this.#rows.dim(0) - 1) / size;
    const rowsOf = (r: number): Tensor => this.#rows.rows(1 + r * share, 1 + (r + 1) * share);
    const sends: Send[] = [];
    const receives: Receive[] = [];
    const others: { readonly partials: Tensor; readonly loads: Tensor }[] = [];
    for (let peer = 0; peer < size; peer++) {
      if (peer === rank) continue;
      const theirs = {
        partials: device.empty(partials.shape, partials.dtype),
        loads: device.empty(this.#loads.shape, "i32"),
      };
      others.push(theirs);
      for (const x of [rowsOf(rank), partials, this.#loads]) sends.push({ to: peer, x });
      for (const y of [rowsOf(peer), theirs.partials, theirs.loads]) receives.push({ from: peer, y });
      if (rank === 0) sends.push({ to: peer, x: this.stop });
      if (peer === 0) receives.push({ from: peer, y: this.stop });
    }
    communicator.exchange(sends, receives).wait();
    for (const theirs of others) {
      // Each place has one owner: what is added is zero, and rounds nothing.
      axpy(theirs.partials, partials, 1);
      addCounts(theirs.loads, this.#loads);
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
      balance: total(1),
      gradNorm: floats[0]!,
      isAskedToStop: floats[1]! > 0,
      mtp: Array.from({ length: this.#mtpDepth }, (_, k) => ({
        nats: total(2 + 2 * k),
        hits: total(3 + 2 * k),
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

  #sum(index: number): Tensor {
    return this.#sums.rows(index, index + 1);
  }
}
