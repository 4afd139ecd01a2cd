/**
 * How often each pair of adjacent tokens occurs in the words of the trainer, kept true while pairs merge.
 *
 * All words lie in one row of positions with links to the neighbours, and every pair knows the positions
 * where it occurred; a merge visits those alone. Two facts of BPE keep this small (both are property tests
 * of the trainer): a merge always makes a token that did not exist, so the pairs that gain are the new
 * ones, and their lists grow from left to right, as leftmost-first merging needs.
 */

import { growInt32 } from "./growable.ts";
import { Heap } from "./heap.ts";
import { PairTable } from "./pairTable.ts";

export interface CountedPair {
  readonly index: number;
  readonly left: number;
  readonly right: number;
  readonly count: number;
}

const NONE = -1;
/** In place of the id of a position that was merged into the one before it. */
const GONE = -1;
/** After this many positions a merge offers to pause; about half a millisecond. */
const POSITIONS_PER_PART = 4096;

export class PairCounts {
  private readonly pairs: PairTable = new PairTable();
  private readonly counts: number[] = [];
  private readonly positions: number[][] = [];
  // The count of a pair when it was queued. Counts only fall while it waits; `popBest` puts it back then.
  private readonly queuedCounts: number[] = [];
  private readonly queue: Heap = new Heap((a, b) => this.isBefore(a, b));

  private numPositions = 0;
  private ids: Int32Array = new Int32Array(1024);
  private next: Int32Array = new Int32Array(1024);
  private previous: Int32Array = new Int32Array(1024);
  private readonly weights: number[] = [];

  /** Counts the pairs of a word that occurs `weight` times. */
  addWord(bytes: Uint8Array, byteIds: Int32Array, weight: number): void {
    const first = this.numPositions;
    const end = first + bytes.length;
    this.ids = growInt32(this.ids, end);
    this.next = growInt32(this.next, end);
    this.previous = growInt32(this.previous, end);
    for (let at = first; at < end; at++) {
      this.ids[at] = byteIds[bytes[at - first]!]!;
      this.previous[at] = at === first ? NONE : at - 1;
      this.next[at] = at + 1 === end ? NONE : at + 1;
      this.weights.push(weight);
      if (at > first) this.gain(this.ids[at - 1]!, this.ids[at]!, weight, at - 1);
    }
    this.numPositions = end;
  }

  /** The most frequent pair, taken out of the queue; undefined if no pair is left. */
  popBest(): CountedPair | undefined {
    this.queueNewPairs();
    for (let index = this.queue.pop(); index !== undefined; index = this.queue.pop()) {
      const count = this.counts[index]!;
      if (count === this.queuedCounts[index]) {
        return { index, left: this.pairs.leftOf(index), right: this.pairs.rightOf(index), count };
      }
      this.queuedCounts[index] = count;
      if (count > 0) this.queue.push(index);
    }
    return undefined;
  }

  /** Replaces the pair by the token `id` in all words; yields now and then, so that the caller may pause. */
  *merge(pair: CountedPair, id: number): Generator<void> {
    const positions = this.positions[pair.index]!;
    for (const [visited, at] of positions.entries()) {
      this.mergeAt(at, pair, id);
      if (visited % POSITIONS_PER_PART === POSITIONS_PER_PART - 1) yield;
    }
    this.positions[pair.index] = [];
  }

  private mergeAt(at: number, pair: CountedPair, id: number): void {
    const right = this.next[at]!;
    // An entry may be older than a merge that took one of its two tokens away.
    if (this.ids[at] !== pair.left || right === NONE || this.ids[right] !== pair.right) return;
    const before = this.previous[at]!;
    const after = this.next[right]!;
    const weight = this.weights[at]!;
    if (before !== NONE) {
      this.lose(this.ids[before]!, pair.left, weight);
      this.gain(this.ids[before]!, id, weight, before);
    }
    if (after !== NONE) {
      this.lose(pair.right, this.ids[after]!, weight);
      this.gain(id, this.ids[after]!, weight, at);
      this.previous[after] = at;
    }
    this.ids[at] = id;
    this.ids[right] = GONE;
    this.next[at] = after;
  }

  private gain(left: number, right: number, weight: number, at: number): void {
    const index = this.pairs.add(left, right);
    if (index === this.counts.length) {
      this.counts.push(0);
      this.positions.push([]);
    }
    this.counts[index]! += weight;
    this.positions[index]!.push(at);
  }

  private lose(left: number, right: number, weight: number): void {
    this.counts[this.pairs.find(left, right)]! -= weight;
  }

  private queueNewPairs(): void {
    for (let index = this.queuedCounts.length; index < this.counts.length; index++) {
      this.queuedCounts.push(this.counts[index]!);
      // A pair may come and go within one merge.
      if (this.counts[index]! > 0) this.queue.push(index);
    }
  }

  private isBefore(a: number, b: number): boolean {
    if (this.queuedCounts[a] !== this.queuedCounts[b]) return this.queuedCounts[a]! > this.queuedCounts[b]!;
    if (this.pairs.leftOf(a) !== this.pairs.leftOf(b)) return this.pairs.leftOf(a) < this.pairs.leftOf(b);
    return this.pairs.rightOf(a) < this.pairs.rightOf(b);
  }
}
