import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { OutOfMemoryError } from "../base/index.ts";
import { ALIGNMENT, Arena } from "./arena.ts";

describe("Arena", () => {
  test("hands out aligned ranges that never overlap, whatever is allocated and released", () => {
    const action = fc.record({ isAllocation: fc.boolean(), value: fc.nat({ max: 5000 }) });
    fc.assert(
      fc.property(fc.array(action, { maxLength: 200 }), (actions) => {
        const arena = new Arena(1 << 22);
        const live: { start: number; end: number }[] = [];
        for (const { isAllocation, value } of actions) {
          if (isAllocation || live.length === 0) {
            const start = arena.allocate(value);
            const range = { start, end: start + Math.max(value, 1) };
            expect(start % ALIGNMENT).toBe(0);
            expect(live.every((other) => range.end <= other.start || other.end <= range.start)).toBe(true);
            live.push(range);
          } else {
            const [range] = live.splice(value % live.length, 1);
            arena.release(range!.start);
          }
          expect(arena.liveCount).toBe(live.length);
        }
        for (const { start } of live) arena.release(start);
        expect(arena.liveBytes).toBe(0);
      }),
    );
  });

  test("gives everything back: after all releases one allocation of the high-water mark fits again", () => {
    const arena = new Arena(10_000 * ALIGNMENT);
    const addresses = Array.from({ length: 100 }, (_, i) => arena.allocate((i % 7) * 100 + 1));
    const mark = arena.highWaterBytes;
    for (const address of addresses.reverse()) arena.release(address);
    arena.allocate(mark);
    expect(arena.highWaterBytes).toBe(mark);
  });

  test("takes the smallest hole that fits", () => {
    const arena = new Arena(1 << 20);
    const [large, , small] = [
      arena.allocate(640),
      arena.allocate(64),
      arena.allocate(128),
      arena.allocate(64),
    ];
    arena.release(large!);
    arena.release(small!);
    expect(arena.allocate(100)).toBe(small);
    expect(arena.allocate(600)).toBe(large);
  });

  test("allocates anew from where the last range in use ends", () => {
    const arena = new Arena(1 << 20);
    arena.allocate(64);
    const last = arena.allocate(64);
    arena.release(last);
    expect(arena.allocate(6400)).toBe(last);
    expect(arena.highWaterBytes).toBe(last + 6400);
  });

  test("gives the same addresses again wherever the same ranges are in use, however they came to be", () => {
    const sizes = fc.array(fc.nat({ max: 3000 }), { minLength: 1, maxLength: 30 });
    fc.assert(
      fc.property(sizes, sizes, sizes, fc.infiniteStream(fc.boolean()), (standing, detour, wanted, coin) => {
        const arena = new Arena(1 << 22);
        const kept = standing.map((size) => ({ address: arena.allocate(size), stays: coin.next().value }));
        for (const { address, stays } of kept) if (!stays) arena.release(address);
        const { layout } = arena;
        const first = wanted.map((size) => arena.allocate(size));
        for (const address of first) arena.release(address);
        const passing = detour.map((size) => arena.allocate(size));
        expect(arena.hasLayout(layout)).toBe(false);
        for (const address of passing.toReversed()) arena.release(address);
        expect(arena.hasLayout(layout)).toBe(true);
        expect(wanted.map((size) => arena.allocate(size))).toEqual(first);
      }),
    );
  });

  test("tells one layout from another by every hole and by the end", () => {
    const arena = new Arena(1 << 20);
    const [first, second] = [arena.allocate(64), arena.allocate(128), arena.allocate(64)];
    const { layout } = arena;
    arena.release(first!);
    expect(arena.hasLayout(layout)).toBe(false);
    const withHole = arena.layout;
    arena.release(second!);
    expect(arena.hasLayout(withHole)).toBe(false);
    arena.allocate(192);
    expect(arena.hasLayout(layout)).toBe(true);
    arena.allocate(1);
    expect(arena.hasLayout(layout)).toBe(false);
  });

  test("says how much is in use when there is no room", () => {
    const arena = new Arena(1024);
    arena.allocate(512);
    expect(() => arena.allocate(1024)).toThrow(OutOfMemoryError);
    expect(() => arena.allocate(1024)).toThrow(/512 of 1024 bytes are in use/);
    expect(arena.liveBytes).toBe(512);
  });

  test("takes a second release of the same address for a bug", () => {
    const arena = new Arena(1024);
    const address = arena.allocate(1);
    arena.release(address);
    expect(() => arena.release(address)).toThrow(/released twice/);
  });
});
