/**
 * Where in the backend's memory each tensor lies: best-fit over a range of addresses, in pure numbers.
 *
 * Allocation and release happen when an op is enqueued; commands run in that order, so memory that
 * is released may be handed out again at once. Because nothing here touches memory, the same
 * allocator run over a step without arithmetic predicts the step's high-water mark exactly.
 */
import { invariant, OutOfMemoryError } from "../base/index.ts";

/** Cache line and AVX-512 register width, in bytes. */
export const ALIGNMENT = 64;

interface Hole {
  start: number;
  size: number;
}

export class Arena {
  readonly limit: number;
  #end = 0;
  #live = 0;
  #count = 0;
  readonly #sizes: Map<number, number> = new Map();
  /** Free ranges below #end, by address; never adjacent to one another. */
  readonly #holes: Hole[] = [];

  /** @param limit bytes that may be in use at once */
  constructor(limit: number) {
    this.limit = limit;
  }

  /** Bytes in use, alignment included. */
  get liveBytes(): number {
    return this.#live;
  }

  get liveCount(): number {
    return this.#count;
  }

  /** The highest address ever in use: what the backend has committed. */
  get highWaterBytes(): number {
    return this.#end;
  }

  allocate(bytes: number): number {
    const size = Math.max(ALIGNMENT, Math.ceil(bytes / ALIGNMENT) * ALIGNMENT);
    const address = this.#take(size);
    this.#sizes.set(address, size);
    this.#live += size;
    this.#count++;
    return address;
  }

  release(address: number): void {
    const size = this.#sizes.get(address);
    invariant(size !== undefined, `address ${address} is released twice`);
    this.#sizes.delete(address);
    this.#live -= size;
    this.#count--;
    this.#addHole(address, size);
  }

  #take(size: number): number {
    let best = -1;
    for (let i = 0; i < this.#holes.length; i++) {
      const hole = this.#holes[i]!;
      if (hole.size >= size && (best < 0 || hole.size < this.#holes[best]!.size)) best = i;
    }
    if (best >= 0) {
      const hole = this.#holes[best]!;
      const address = hole.start;
      hole.start += size;
      hole.size -= size;
      if (hole.size === 0) this.#holes.splice(best, 1);
      return address;
    }
    // A free range at the very end is grown instead of being left behind.
    const last = this.#holes.at(-1);
    const start = last !== undefined && last.start + last.size === this.#end ? last.start : this.#end;
    if (start + size > this.limit) throw this.#outOfMemory(size);
    if (start !== this.#end) this.#holes.pop();
    this.#end = start + size;
    return start;
  }

  #addHole(start: number, size: number): void {
    let low = 0;
    let high = this.#holes.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#holes[middle]!.start < start) low = middle + 1;
      else high = middle;
    }
    const before = this.#holes[low - 1];
    const after = this.#holes[low];
    const joinsBefore = before !== undefined && before.start + before.size === start;
    const joinsAfter = after !== undefined && start + size === after.start;
    if (joinsBefore && joinsAfter) {
      before.size += size + after.size;
      this.#holes.splice(low, 1);
    } else if (joinsBefore) before.size += size;
    else if (joinsAfter) {
      after.start = start;
      after.size += size;
    } else this.#holes.splice(low, 0, { start, size });
  }

  #outOfMemory(size: number): OutOfMemoryError {
    return new OutOfMemoryError(
      `no room for ${size} bytes: ${this.#live} of ${this.limit} bytes are in use`,
      {
        why: "the arena's limit is the memory that this process may take",
        fix: "use a smaller --preset, fewer tokens a step (--set microBatchRows=...), or a machine with more memory",
        fields: { size, live: this.#live, limit: this.limit },
      },
    );
  }
}
