/**
 * Sums the gradients of S equal blocks of micro-batches by a fixed binary tree.
 *
 * Inside a block gradients are added one after another; blocks are added pairwise: (0+1)+(2+3) and so on. So a run
 * cut over ranks, each with whole blocks, adds the same numbers in the same order as one process.
 */
import { axpy, copyInto, fill, type Parameter, type QueueDevice, type Tensor } from "../tensor/index.ts";

export class GradientTree {
  readonly #device: QueueDevice;
  readonly #parameters: readonly Parameter[];
  /** Sums of 1, 2, 4, ... blocks that wait for their other half. */
  readonly #waiting: (readonly Tensor[] | null)[] = [];

  constructor(device: QueueDevice, parameters: readonly Parameter[]) {
    this.#device = device;
    this.#parameters = parameters;
  }

  /** Takes the block that has just been summed in the gradient buffers, which are free again afterwards. */
  addBlock(): void {
    let level = 0;
    for (; this.#waiting[level] != null; level++) {
      this.#waiting[level]!.forEach((left, i) => {
        // left + right, in this order: the earlier blocks stand left.
        axpy(this.#grad(i), left, 1);
        copyInto(left, this.#grad(i));
        left.dispose();
      });
      this.#waiting[level] = null;
    }
    this.#waiting[level] = this.#parameters.map((parameter, i) => {
      const copy = this.#device.temporary(parameter.shape, this.#grad(i).dtype);
      copyInto(this.#grad(i), copy);
      fill(this.#grad(i), 0);
      return copy;
    });
  }

  /** Leaves the whole sum in the gradient buffers. S must be a power of two times one leftover level. */
  finish(): void {
    let isFirst = true;
    for (const [level, sums] of this.#waiting.entries()) {
      if (sums === null) continue;
      sums.forEach((left, i) => {
        if (!isFirst) axpy(this.#grad(i), left, 1);
        copyInto(left, this.#grad(i));
        left.dispose();
      });
      this.#waiting[level] = null;
      isFirst = false;
    }
  }

  #grad(index: number): Tensor {
    return this.#parameters[index]!.grad!;
  }
}
