import { growInt32 } from "./growable.ts";
import { PairTable } from "./pairTable.ts";

/** Four times V3's. ../bpe.ts must be able to rank positions by merge in one double. */
export const MAX_MERGES: number = 1 << 19;

/** The rules of BPE in rank order: `left` and `right`, adjacent, become `id`. */
export class MergeTable {
  private readonly pairs: PairTable = new PairTable();
  private ids: Int32Array = new Int32Array(512);

  /** How many merges there are; ranks go from 0 to size - 1. */
  get size(): number {
    return this.pairs.size;
  }

  /** Adds the next rank; false, and nothing added, if the pair has one already. */
  add(left: number, right: number, id: number): boolean {
    const rank = this.pairs.size;
    if (this.pairs.add(left, right) !== rank) return false;
    this.ids = growInt32(this.ids, rank + 1);
    this.ids[rank] = id;
    return true;
  }

  /** The rank of a pair, -1 if it does not merge. */
  rankOf(left: number, right: number): number {
    return this.pairs.find(left, right);
  }

  leftOf(rank: number): number {
    return this.pairs.leftOf(rank);
  }

  rightOf(rank: number): number {
    return this.pairs.rightOf(rank);
  }

  /** The token that a merge makes. */
  idOf(rank: number): number {
    return this.ids[rank]!;
  }
}
