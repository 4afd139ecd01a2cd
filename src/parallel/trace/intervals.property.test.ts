/** Sets of time against their moments: between two whole seconds a set has all or nothing. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Interval, totalTime, union, without } from "./intervals.ts";

const END = 24;
const moments = Array.from({ length: END }, (_, second) => second + 0.5);

const anyIntervals: fc.Arbitrary<readonly Interval[]> = fc.array(
  fc
    .tuple(fc.integer({ min: 0, max: END }), fc.integer({ min: 0, max: 6 }))
    .map(([start, length]) => ({ start, end: Math.min(END, start + length) })),
  { maxLength: 8 },
);

const has = (set: readonly Interval[], at: number): boolean =>
  set.some(({ start, end }) => start < at && at < end);

describe("sets of time", () => {
  test("a union has the moments of its parts, in stretches that do not touch", () => {
    fc.assert(
      fc.property(anyIntervals, (intervals) => {
        const joined = union(intervals);
        expect(moments.filter((at) => has(joined, at))).toEqual(moments.filter((at) => has(intervals, at)));
        for (const [i, { start, end }] of joined.entries()) {
          expect(end).toBeGreaterThan(start);
          expect(start).toBeGreaterThan(joined[i - 1]?.end ?? -1);
        }
        expect(totalTime(joined)).toBe(moments.filter((at) => has(intervals, at)).length);
      }),
    );
  });

  test("what is left of a set without another has the moments of the one only, none of them empty", () => {
    fc.assert(
      fc.property(anyIntervals, anyIntervals, (intervals, taken) => {
        const left = without(union(intervals), union(taken));
        const wanted = moments.filter((at) => has(intervals, at) && !has(taken, at));
        expect(moments.filter((at) => has(left, at))).toEqual(wanted);
        expect(totalTime(left)).toBe(wanted.length);
        for (const { start, end } of left) expect(end).toBeGreaterThan(start);
      }),
    );
  });
});
