/**
 * What a step adds up on the queue and JavaScript reads once: losses, hits, gradient norm, expert load.
 *
 * All floats lie in one tensor and all counts in another, so that a step's record is two small reads.
 */
import type { ModelBuffer } from "../model/index.ts";
import {
  axpy,
  copyInto,
  countPositive,
  type Dtype,
  expertLoad,
  fill,
  globalGradNorm,
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
  /** Per MTP module. */
  readonly mtp: readonly { readonly nats: number; readonly hits: number }[];
  /** Tokens per expert, per MoE layer, MTP's last. */
  readonly expertLoad: readonly Int32Array[];
}

export class StepTotals {
  readonly #routers: readonly ModelBuffer[];
  readonly #mtpDepth: number;
  /** Main loss, balance loss, gradient norm, then loss and hits of each MTP module. */
  readonly #floats: Tensor;
  /** [layers, E] i32 */
  readonly #loads: Tensor;

  constructor(device: QueueDevice, routers: readonly ModelBuffer[], mtpDepth: number, dtype: Dtype) {
    this.#routers = routers;
    this.#mtpDepth = mtpDepth;
    this.#floats = device.temporary([3 + 2 * mtpDepth], dtype);
    this.#loads = device.temporary([routers.length, routers[0]?.value.size ?? 0], "i32");
  }

  /** [1]: the norm of all gradients. */
  get norm(): Tensor {
    return this.#float(2);
  }

  /** [E] i32: tokens per expert of one MoE layer. */
  load(layer: number): Tensor {
    return this.#loads.rows(layer, layer + 1).reshape(-1);
  }

  /** Sets the counts to zero: a write, so it comes before what is recorded. */
  clearLoads(): void {
    this.#loads.write(new Int32Array(this.#loads.size));
  }

  clearSums(): void {
    fill(this.#floats, 0);
  }

  /** Adds the losses of a micro-batch. */
  add({ main, mtp, reports }: Losses): void {
    axpy(reduceSum(main.loss, 1), this.#float(0), 1);
    mtp.forEach(({ loss, hits }, k) => {
      axpy(reduceSum(loss, 1), this.#float(3 + 2 * k), 1);
      axpy(countPositive(hits), this.#float(4 + 2 * k), 1);
    });
    for (const { balanceLoss, plan, router } of reports) {
      if (balanceLoss !== null) axpy(balanceLoss, this.#float(1), 1);
      expertLoad(plan, this.load(this.#routers.indexOf(router.bias)));
    }
  }

  takeNorm(grads: readonly Tensor[]): void {
    copyInto(globalGradNorm(grads), this.norm);
  }

  async read(): Promise<Totals> {
    const [floats, loads] = await Promise.all([this.#floats.read(), this.#loads.read()]);
    const experts = this.#loads.dim(-1);
    return {
      main: floats[0]!,
      balance: floats[1]!,
      gradNorm: floats[2]!,
      mtp: Array.from({ length: this.#mtpDepth }, (_, k) => ({
        nats: floats[3 + 2 * k]!,
        hits: floats[4 + 2 * k]!,
      })),
      expertLoad: this.#routers.map((_, i) =>
        Int32Array.from(loads.subarray(i * experts, (i + 1) * experts)),
      ),
    };
  }

  dispose(): void {
    this.#floats.dispose();
    this.#loads.dispose();
  }

  #float(index: number): Tensor {
    return this.#floats.rows(index, index + 1);
  }
}
