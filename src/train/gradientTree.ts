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
  /** Sums of 1, 2, 4, ... blocks that wait for their other half, parameter by parameter; empty where none waits. */
  readonly #waiting: Tensor[][] = [];

  constructor(device: QueueDevice, parameters: readonly Parameter[]) {
    this.#device = device;
    this.#parameters = parameters;
  }

  /** Takes the block that has just been summed in the gradient buffers, which are free again afterwards. */
  addBlock(): void {
    let level = 0;
    while (this.#waits(level)) this.#join(level++);
    const copies: Tensor[] = [];
    this.#waiting[level] = copies;
    for (const [i, { shape }] of this.#parameters.entries()) {
      const copy = this.#device.temporary(shape, this.#grad(i).dtype);
      copies.push(copy);
      copyInto(this.#grad(i), copy);
      fill(this.#grad(i), 0);
    }
  }

  /** Leaves the whole sum in the gradient buffers. S must be a power of two times one leftover level. */
  finish(): void {
    // The buffers are zero after the last block: the first sum is copied there, not added.
    let isFirst = true;
    for (const level of this.#waiting.keys()) {
      if (!this.#waits(level)) continue;
      this.#join(level, isFirst);
      isFirst = false;
    }
  }

  /** Gives back what still waits: of a step that broke off. */
  [Symbol.dispose](): void {
    for (const sums of this.#waiting) for (const sum of sums.splice(0)) sum.dispose();
  }

  #waits(level: number): boolean {
    return (this.#waiting[level]?.length ?? 0) > 0;
  }

  /** Adds the gradient buffers to the sums of a level, or takes these alone; the buffers hold what comes out. */
  #join(level: number, isAlone: boolean = false): void {
    const sums = this.#waiting[level] ?? [];
    for (const [i, sum] of sums.entries()) {
      // sum + buffer, in this order: the earlier blocks stand left.
      if (!isAlone) axpy(this.#grad(i), sum, 1);
      copyInto(sum, this.#grad(i));
    }
    for (const sum of sums.splice(0)) sum.dispose();
  }

  #grad(index: number): Tensor {
    return this.#parameters[index]!.grad!;
  }
}
