/**
 * Byte-level BPE on one piece of text: starts from the ids of its bytes and merges, again and again, the
 * adjacent pair of lowest rank, leftmost first. What a piece is, says pretokenizer.ts.
 *
 * Most pieces are short words that come again: they are answered by a cache of bounded size. A short
 * piece is merged by looking through its pairs, a long one (base64, a line of dashes, a megabyte of one
 * letter) over a linked list and a heap, in O(n log n).
 */

import { growInt32 } from "./tables/growable.ts";
import { Heap } from "./tables/heap.ts";
import type { MergeTable } from "./tables/mergeTable.ts";
import { PieceTable } from "./tables/pieceTable.ts";

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

/**
 * Pieces up to this many bytes are merged without a heap and kept in the cache: up to here looking through
 * all pairs is as fast as a heap, and longer pieces hardly come twice.
 */
const MAX_SHORT_BYTES = 64;
/** Both bounds together keep the cache below 24 MB (a token for each byte); in English it takes about 5. */
const MAX_CACHED_PIECES = 1 << 17;
const MAX_CACHED_BYTES = 1 << 21;
const NO_RANK = 0x7fffffff;
/** A key of the heap is rank * POSITIONS + position, exact in a double: by rank, then from the left. */
const POSITIONS = 2 ** 32;

export class BytePairEncoder {
  private readonly byteIds: Int32Array;
  private readonly merges: MergeTable;
  private readonly cache: PieceTable = new PieceTable();
  private readonly cachedIds: IdList = new IdList();
  private cachedEnds: Int32Array = new Int32Array(512);
  private readonly ids: Int32Array = new Int32Array(MAX_SHORT_BYTES);
  private readonly ranks: Int32Array = new Int32Array(MAX_SHORT_BYTES);

  /** @param byteIds  [256] the id of each byte */
  constructor(byteIds: Int32Array, merges: MergeTable) {
    this.byteIds = byteIds;
    this.merges = merges;
  }

  /** What the cached pieces and their ids take; the tables have room for up to twice as much. */
  get cacheSizeBytes(): number {
    return this.cache.numBytes + 4 * this.cachedIds.length;
  }

  /** Appends the ids of the piece bytes[start, end) to `output`. */
  encode(bytes: Uint8Array, start: number, end: number, output: IdList): void {
    if (end - start > MAX_SHORT_BYTES) {
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
    this.mergeShort(bytes, start, end, this.cachedIds);
    this.cachedEnds = growInt32(this.cachedEnds, index + 1);
    this.cachedEnds[index] = this.cachedIds.length;
  }

  private rankOf(left: number, right: number): number {
    const rank = this.merges.rankOf(left, right);
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
      ids[best] = this.merges.idOf(ranks[best]!);
      length--;
      // Loops, because a call of `copyWithin` costs more than to move the few ids of a word.
      for (let at = best + 1; at < length; at++) ids[at] = ids[at + 1]!;
      for (let at = best; at + 1 < length; at++) ranks[at] = ranks[at + 1]!;
      if (best > 0) ranks[best - 1] = this.rankOf(ids[best - 1]!, ids[best]!);
      if (best + 1 < length) ranks[best] = this.rankOf(ids[best]!, ids[best + 1]!);
    }
    for (let at = 0; at < length; at++) output.push(ids[at]!);
  }

  private mergeLong(bytes: Uint8Array, start: number, end: number, output: IdList): void {
    const length = end - start;
    const ids = new Int32Array(length);
    const next = new Int32Array(length);
    const previous = new Int32Array(length);
    const heap = new Heap((a, b) => a < b);
    const offer = (left: number, right: number): void => {
      const rank = this.merges.rankOf(ids[left]!, ids[right]!);
      if (rank >= 0) heap.push(rank * POSITIONS + left);
    };
    for (let at = 0; at < length; at++) {
      ids[at] = this.byteIds[bytes[start + at]!]!;
      next[at] = at + 1;
      previous[at] = at - 1;
      if (at > 0) offer(at - 1, at);
    }
    for (let key = heap.pop(); key !== undefined; key = heap.pop()) {
      const rank = Math.floor(key / POSITIONS);
      const left = key - rank * POSITIONS;
      const right = next[left]!;
      // A pair has one rank, so an entry whose rank still holds is no leftover of an earlier pair.
      if (ids[left] === GONE || right === length || this.merges.rankOf(ids[left]!, ids[right]!) !== rank)
        continue;
      ids[left] = this.merges.idOf(rank);
      ids[right] = GONE;
      const after = next[right]!;
      next[left] = after;
      if (left > 0) offer(previous[left]!, left);
      if (after === length) continue;
      previous[after] = left;
      offer(left, after);
    }
    for (let at = 0; at < length; at = next[at]!) output.push(ids[at]!);
  }
}

/** In place of the id of a position that was merged into the one before it. */
const GONE = -1;
