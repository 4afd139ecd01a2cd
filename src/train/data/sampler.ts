/**
 * Rows for training: epoch after epoch, each in an order of its own, from any position on.
 *
 * The order of an epoch depends on the seed and the epoch alone, and rows come out one after another whatever the
 * size of the batches in which they are drawn; so a position of two numbers says all.
 */
import { DataError, invariant } from "../../base/index.ts";
import type { Rows } from "../batch.ts";
import { uniforms } from "./random.ts";
import type { Shard } from "./shard.ts";

export interface DataPosition {
  readonly epoch: number;
  /** Rows of the epoch that have been given out. */
  readonly row: number;
}

export class RowSampler {
  readonly #shard: Shard;
  readonly #seed: number;
  #position: DataPosition = { epoch: 0, row: 0 };
  #order: Int32Array;

  constructor(shard: Shard, seed: number) {
    invariant(shard.count > 0, `${shard.path} holds rows to draw from`);
    this.#shard = shard;
    this.#seed = seed;
    this.#order = epochOrder(shard.count, seed, 0);
  }

  get position(): DataPosition {
    return this.#position;
  }

  /** @throws {DataError} if the data has no such position: it is other data than that of the run */
  set position(position: DataPosition) {
    if (position.row > this.#shard.count) {
      throw new DataError(
        `row ${position.row} of ${this.#shard.path} is asked for, it holds ${this.#shard.count}`,
        {
          why: "the data was prepared anew since the checkpoint was written, from other documents",
          fix: "restore the documents that the run was started with and delete its data/ folder, or start a new run",
          fields: { path: this.#shard.path, ...position },
        },
      );
    }
    this.#order = epochOrder(this.#shard.count, this.#seed, position.epoch);
    this.#position = position;
  }

  next(count: number): Rows {
    const rows: number[] = [];
    while (rows.length < count) {
      const { epoch, row } = this.#position;
      if (row === this.#shard.count) {
        this.position = { epoch: epoch + 1, row: 0 };
        continue;
      }
      rows.push(this.#order[row]!);
      this.#position = { epoch, row: row + 1 };
    }
    return { tokens: this.#shard.read(rows), count, rowLength: this.#shard.rowWidth - 1 };
  }
}

/** A permutation of 0 .. count - 1 by Fisher and Yates. */
export function epochOrder(count: number, seed: number, epoch: number): Int32Array {
  const order = Int32Array.from({ length: count }, (_, i) => i);
  const random = uniforms(seed, "shuffle", epoch);
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    const swapped = order[i]!;
    order[i] = order[j]!;
    order[j] = swapped;
  }
  return order;
}
