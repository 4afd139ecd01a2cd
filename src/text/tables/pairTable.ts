/**
 * Numbers pairs of token ids 0, 1, 2... in the order of their first appearance. The encoder adds its
 * merges in rank order, so that a pair's number is its rank; the trainer hangs counts on the numbers.
 */

import { growInt32 } from "./growable.ts";

export class PairTable {
  private numPairs = 0;
  private pairs: Int32Array = new Int32Array(512); // left, right
  // Four numbers a slot, so that a look-up touches one cache line: left, right, index + 1 (0 is free), unused.
  private slots: Int32Array = new Int32Array(4 * 512);

  get size(): number {
    return this.numPairs;
  }

  leftOf(index: number): number {
    return this.pairs[2 * index]!;
  }

  rightOf(index: number): number {
    return this.pairs[2 * index + 1]!;
  }

  /** The number of a pair, -1 if it was never added. */
  find(left: number, right: number): number {
    return this.slots[this.slotOf(left, right) + 2]! - 1;
  }

  /** The number of a pair, given to it now if it is new. */
  add(left: number, right: number): number {
    const slot = this.slotOf(left, right);
    const known = this.slots[slot + 2]!;
    if (known !== 0) return known - 1;
    const index = this.numPairs++;
    this.pairs = growInt32(this.pairs, 2 * index + 2);
    this.pairs[2 * index] = left;
    this.pairs[2 * index + 1] = right;
    this.fill(slot, index);
    if (this.numPairs * 8 > this.slots.length) this.rehash();
    return index;
  }

  /** The slot that holds the pair, or the free one that would. */
  private slotOf(left: number, right: number): number {
    const mask = this.slots.length - 1;
    let hash = Math.imul(left, 0x9e3779b1) ^ Math.imul(right, 0x85ebca77);
    hash ^= hash >>> 15;
    let slot = (hash << 2) & mask;
    while (this.slots[slot + 2] !== 0 && (this.slots[slot] !== left || this.slots[slot + 1] !== right)) {
      slot = (slot + 4) & mask;
    }
    return slot;
  }

  private fill(slot: number, index: number): void {
    this.slots[slot] = this.pairs[2 * index]!;
    this.slots[slot + 1] = this.pairs[2 * index + 1]!;
    this.slots[slot + 2] = index + 1;
  }

  private rehash(): void {
    this.slots = new Int32Array(this.slots.length * 2);
    for (let index = 0; index < this.numPairs; index++) {
      this.fill(this.slotOf(this.leftOf(index), this.rightOf(index)), index);
    }
  }
}
