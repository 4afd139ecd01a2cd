/**
 * Byte-level BPE on one piece of text: starts from the ids of its bytes and merges, again and again, the
 * adjacent pair of lowest rank, leftmost first. What a piece is, says pretokenizer.ts.
 *
 * Most pieces are short words that come again: they are answered by a cache of bounded size. A short
 * piece is merged by looking through its pairs, a long one (base64, a line of dashes, a megabyte of one
 * letter) over a linked list and a heap, in O(n log n).
 */

import { growInt32 } from "./growable.ts";
import { Heap } from "./heap.ts";
import { PairTable } from "./pairTable.ts";
import { PieceTable } from "./pieceTable.ts";

/** A rule of BPE: `left` and `right`, adjacent, become `id`. Its rank is its place in the list. */
export interface Merge {
  readonly left: number;
  readonly right: number;
  readonly id: number;
}

/** Token ids that pile up. */
export class IdList {
  private ids: Int32Array = new Int32Array(256);
  private numIds = 0;

  get length(): number {
    return this.numIds;
  }

  push(id: number): void {
    if (this.numIds === this.ids.length) this.ids = growInt32(this.ids, this.numIds + 1);
    this.ids[this.numIds++] = id;
  }

  /** Appends source[from, to). */
  pushRange(source: IdList, from: number, to: number): void {
    this.ids = growInt32(this.ids, this.numIds + to - from);
    // A loop, because `set(subarray)` costs more than the one or two ids of most pieces.
    for (let at = from; at < to; at++) this.ids[this.numIds++] = source.ids[at]!;
  }

  clear(): void {
    this.numIds = 0;
  }

  toArray(): Int32Array {
    return this.ids.slice(0, this.numIds);
  }
}

/** Pieces up to this many bytes are merged without a heap: at 32 bytes both ways take the same time. */
const MAX_SHORT_BYTES = 32;
/** Longer pieces hardly come twice. */
const MAX_CACHED_PIECE_BYTES = 64;
/** Both bounds together keep the cache below 16 MB, its ids (at most one a byte) included. */
const MAX_CACHED_PIECES = 1 << 17;
const MAX_CACHED_BYTES = 1 << 21;
/** Four times V3. The heap's keys are rank * 2^32 + position and must stay exact in a double. */
export const MAX_MERGES: number = 1 << 19;

const NO_RANK = 0x7fffffff;

export class BytePairEncoder {
  private readonly byteIds: Int32Array;
  private readonly pairs: PairTable = new PairTable();
  private readonly mergedIds: Int32Array;
  private readonly cache: PieceTable = new PieceTable();
  private readonly cachedIds: IdList = new IdList();
  private cachedEnds: Int32Array = new Int32Array(512);
  private readonly ids: Int32Array = new Int32Array(MAX_SHORT_BYTES);
  private readonly ranks: Int32Array = new Int32Array(MAX_SHORT_BYTES);

  /**
   * @param byteIds  [256] the id of each byte
   * @param merges   in rank order, at most MAX_MERGES, no pair twice
   */
  constructor(byteIds: Int32Array, merges: readonly Merge[]) {
    this.byteIds = byteIds;
    this.mergedIds = Int32Array.from(merges, ({ id }) => id);
    for (const { left, right } of merges) this.pairs.add(left, right);
  }

  /** Appends the ids of the piece bytes[start, end) to `output`. */
  encode(bytes: Uint8Array, start: number, end: number, output: IdList): void {
    if (end - start > MAX_CACHED_PIECE_BYTES) {
      this.mergeLong(bytes, start, end, output);
      return;
    }
    const numKnown = this.cache.size;
    const index = this.cache.add(bytes, start, end);
    if (index === numKnown) this.fillCache(index, bytes, start, end);
    output.pushRange(this.cachedIds, index === 0 ? 0 : this.cachedEnds[index - 1]!, this.cachedEnds[index]!);
    // Starting afresh keeps the words of the text at hand as well as an eviction order would.
    if (this.cache.size >= MAX_CACHED_PIECES || this.cache.numBytes >= MAX_CACHED_BYTES) {
      this.cache.clear();
      this.cachedIds.clear();
    }
  }

  private fillCache(index: number, bytes: Uint8Array, start: number, end: number): void {
    if (end - start <= MAX_SHORT_BYTES) this.mergeShort(bytes, start, end, this.cachedIds);
    else this.mergeLong(bytes, start, end, this.cachedIds);
    this.cachedEnds = growInt32(this.cachedEnds, index + 1);
    this.cachedEnds[index] = this.cachedIds.length;
  }

  private rankOf(left: number, right: number): number {
    const rank = this.pairs.find(left, right);
    return rank < 0 ? NO_RANK : rank;
  }

  private mergeShort(bytes: Uint8Array, start: number, end: number, output: IdList): void {
    const { ids, ranks } = this;
    let length = end - start;
    for (let at = 0; at < length; at++) ids[at] = this.byteIds[bytes[start + at]!]!;
    for (let at = 0; at + 1 < length; at++) ranks[at] = this.rankOf(ids[at]!, ids[at + 1]!);
    while (length > 1) {
      let best = 0;
      for (let at = 1; at + 1 < length; at++) if (ranks[at]! < ranks[best]!) best = at;
      if (ranks[best] === NO_RANK) break;
      ids[best] = this.mergedIds[ranks[best]!]!;
      length--;
      ids.copyWithin(best + 1, best + 2, length + 1);
      ranks.copyWithin(best, best + 1, length);
      if (best > 0) ranks[best - 1] = this.rankOf(ids[best - 1]!, ids[best]!);
      if (best + 1 < length) ranks[best] = this.rankOf(ids[best]!, ids[best + 1]!);
    }
    for (let at = 0; at < length; at++) output.push(ids[at]!);
  }

  private mergeLong(bytes: Uint8Array, start: number, end: number, output: IdList): void {
    const length = end - start;
    const ids = Int32Array.from({ length }, (_, at) => this.byteIds[bytes[start + at]!]!);
    const next = Int32Array.from({ length }, (_, at) => at + 1);
    const previous = Int32Array.from({ length }, (_, at) => at - 1);
    const heap = new Heap((a, b) => a < b);
    const offer = (at: number): void => {
      if (at < 0 || next[at]! >= length) return;
      const rank = this.pairs.find(ids[at]!, ids[next[at]!]!);
      if (rank >= 0) heap.push(rank * 2 ** 32 + at);
    };
    for (let at = 0; at < length; at++) offer(at);

    for (let key = heap.pop(); key !== undefined; key = heap.pop()) {
      const rank = Math.floor(key / 2 ** 32);
      const at = key % 2 ** 32;
      const right = next[at]!;
      // A pair has one rank, so an entry whose rank still holds is no leftover of an earlier pair.
      if (ids[at] === GONE || right >= length || this.pairs.find(ids[at]!, ids[right]!) !== rank) continue;
      ids[at] = this.mergedIds[rank]!;
      ids[right] = GONE;
      next[at] = next[right]!;
      if (next[at]! < length) previous[next[at]!] = at;
      offer(previous[at]!);
      offer(at);
    }
    for (let at = 0; at < length; at = next[at]!) output.push(ids[at]!);
  }
}

/** In place of the id of a position that was merged into the one before it. */
const GONE = -1;
