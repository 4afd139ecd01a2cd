/**
 * Numbers byte strings 0, 1, 2... in the order of their first appearance: an open-addressing hash table
 * over one arena of bytes. The encoder caches pieces by it, the trainer counts them by it.
 *
 * Not a Map of strings: cutting a string out of the text for each of its pieces, only to look it up,
 * takes longer than all the rest of encoding.
 */

import { growInt32, growUint8 } from "./growable.ts";

export class PieceTable {
  private numPieces = 0;
  private slots: Int32Array = new Int32Array(1024); // index + 1, 0 is free
  private hashes: Int32Array = new Int32Array(512);
  private ends: Int32Array = new Int32Array(512);
  private arena: Uint8Array = new Uint8Array(8192);

  /** How many different pieces there are. */
  get size(): number {
    return this.numPieces;
  }

  /** How many bytes they have together. */
  get numBytes(): number {
    return this.numPieces === 0 ? 0 : this.ends[this.numPieces - 1]!;
  }

  /** The number of a piece, given to it now if it is new. `index === size before` tells which. */
  add(bytes: Uint8Array, start: number, end: number): number {
    let hash = end - start;
    for (let at = start; at < end; at++) hash = Math.imul(hash ^ bytes[at]!, 0x01000193);
    // The low bits of a product depend on the low bits of its factors only: fold the high ones in.
    hash ^= hash >>> 15;
    const mask = this.slots.length - 1;
    let slot = hash & mask;
    for (let entry = this.slots[slot]!; entry !== 0; entry = this.slots[slot]!) {
      if (this.hashes[entry - 1] === hash && this.equals(entry - 1, bytes, start, end)) return entry - 1;
      slot = (slot + 1) & mask;
    }
    return this.append(slot, hash, bytes, start, end);
  }

  /** The bytes of a piece; a view that is valid until the next `add`. */
  bytesOf(index: number): Uint8Array {
    return this.arena.subarray(this.startOf(index), this.ends[index]);
  }

  /** Forgets all pieces and keeps the memory. */
  clear(): void {
    this.slots.fill(0);
    this.numPieces = 0;
  }

  private startOf(index: number): number {
    return index === 0 ? 0 : this.ends[index - 1]!;
  }

  private equals(index: number, bytes: Uint8Array, start: number, end: number): boolean {
    const first = this.startOf(index);
    if (this.ends[index]! - first !== end - start) return false;
    for (let at = start; at < end; at++) {
      if (this.arena[first + at - start] !== bytes[at]) return false;
    }
    return true;
  }

  private append(slot: number, hash: number, bytes: Uint8Array, start: number, end: number): number {
    const index = this.numPieces;
    const first = this.startOf(index);
    const last = first + end - start;
    this.hashes = growInt32(this.hashes, index + 1);
    this.ends = growInt32(this.ends, index + 1);
    this.arena = growUint8(this.arena, last);
    this.arena.set(bytes.subarray(start, end), first);
    this.hashes[index] = hash;
    this.ends[index] = last;
    this.slots[slot] = index + 1;
    this.numPieces++;
    if (this.numPieces * 2 > this.slots.length) this.rehash();
    return index;
  }

  private rehash(): void {
    this.slots = new Int32Array(this.slots.length * 2);
    const mask = this.slots.length - 1;
    for (let index = 0; index < this.numPieces; index++) {
      let slot = this.hashes[index]! & mask;
      while (this.slots[slot] !== 0) slot = (slot + 1) & mask;
      this.slots[slot] = index + 1;
    }
  }
}
