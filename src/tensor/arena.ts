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
  /** Where the last range in use ends: behind it everything is free. */
  #end = 0;
  #highWater = 0;
  #live = 0;
  #count = 0;
  readonly #sizes: Map<number, number> = new Map();
  /** Free ranges before #end, by address; never adjacent to one another or to #end. */
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
    return this.#highWater;
  }

  /**
   * What the next allocations depend on, as plain numbers: where the last range in use ends, then start and size of
   * each hole. It follows from the ranges in use alone, not from how they came to be.
   */
  get layout(): readonly number[] {
    return [this.#end, ...this.#holes.flatMap(({ start, size }) => [start, size])];
  }

  /** True if the same allocations would get the same addresses as when `layout` was taken. */
  hasLayout(layout: readonly number[]): boolean {
    return (
      layout.length === 1 + 2 * this.#holes.length &&
      layout[0] === this.#end &&
      this.#holes.every(({ start, size }, i) => layout[1 + 2 * i] === start && layout[2 + 2 * i] === size)
    );
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
    const start = this.#end;
    if (start + size > this.limit) throw this.#outOfMemory(size);
    this.#end = start + size;
    this.#highWater = Math.max(this.#highWater, this.#end);
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
    if (start + size === this.#end) {
      this.#end = joinsBefore ? before.start : start;
      if (joinsBefore) this.#holes.pop();
    } else if (joinsBefore && joinsAfter) {
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
