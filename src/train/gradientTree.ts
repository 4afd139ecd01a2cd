/**
 * Sums the gradients of equal blocks of micro-batches by a fixed binary tree.
 *
 * Inside a block gradients are added one after another; blocks are added pairwise: (0+1)+(2+3) and so on. So a run
 * cut over ranks, each with whole blocks, adds the same numbers in the same order as one process: a rank's blocks
 * are a subtree, and parallel's `addByTree` goes on with the ranks' sums.
 */
import { axpy, copyInto, fill, type Parameter, type QueueDevice, type Tensor } from "../tensor/index.ts";

export class GradientTree {
  readonly #grads: readonly Tensor[];
  readonly #blocks: number;
  /** By level: sums of 1, 2, 4, ... blocks that wait for their other half, parameter by parameter. */
  readonly #levels: readonly (readonly Tensor[])[];

  /** Makes the memory for what waits: a step that is replayed needs it in the same place. */
  constructor(device: QueueDevice, parameters: readonly Parameter[], blocks: number) {
    this.#grads = parameters.map(({ grad }) => grad!);
    this.#blocks = blocks;
    this.#levels = Array.from({ length: levelsFor(blocks) }, () =>
      this.#grads.map(({ shape, dtype }) => device.temporary(shape, dtype)),
    );
  }

  /**
   * Takes the block that has just been summed in the gradient buffers: they are zero afterwards, or hold the whole sum
   * after the last block.
   *
   * @param block  its number within the step, from 0
   */
  endBlock(block: number): void {
    const isLast = block === this.#blocks - 1;
    let sums: readonly Tensor[] = this.#grads;
    for (const [level, waiting] of this.#levels.entries()) {
      if (!waits(block, level)) {
        // A last block without a half of its own level still belongs to what waits above.
        if (isLast) continue;
        copyAll(sums, waiting);
        break;
      }
      // waiting + sums: the earlier blocks stand left.
      for (const [i, sum] of sums.entries()) axpy(sum, waiting[i]!, 1);
      sums = waiting;
    }
    if (!isLast) for (const grad of this.#grads) fill(grad, 0);
    else if (sums !== this.#grads) copyAll(sums, this.#grads);
  }

  get bytes(): number {
    return this.#levels.flat().reduce((sum, { storage }) => sum + storage.bytes, 0);
  }

  dispose(): void {
    for (const sum of this.#levels.flat()) sum.dispose();
  }
}

/** After so many blocks, the levels at which a sum waits are the ones of the number's binary digits. */
function waits(blocksBefore: number, level: number): boolean {
  return Math.floor(blocksBefore / 2 ** level) % 2 === 1;
}

/** The last block never waits, so as many levels as blocks - 1 has binary digits. */
function levelsFor(blocks: number): number {
  return blocks === 1 ? 0 : Math.floor(Math.log2(blocks - 1)) + 1;
}

function copyAll(from: readonly Tensor[], to: readonly Tensor[]): void {
  for (const [i, tensor] of from.entries()) copyInto(tensor, to[i]!);
}
