import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { windowLoads, worstLoads } from "./loadBalance.ts";

const stepsOf = (counts: readonly (readonly number[])[], layer = 3) =>
  counts.map((one, index) => ({ step: index + 1, expertLoad: [{ layer, counts: one }] }));

describe("windowLoads", () => {
  test("adds the counts of a window and compares with the layer's mean", () => {
    const [windows] = windowLoads(
      stepsOf([
        [4, 0],
        [2, 2],
        [1, 3],
      ]),
      2,
    );
    expect(windows).toEqual([
      { layer: 3, firstStep: 1, lastStep: 2, max: 6 / 4, min: 2 / 4 },
      { layer: 3, firstStep: 2, lastStep: 3, max: 5 / 4, min: 3 / 4 },
    ]);
  });

  test("fewer steps than a window make one window", () => {
    expect(windowLoads(stepsOf([[3, 1]]), 100)[0]).toEqual([
      { layer: 3, firstStep: 1, lastStep: 1, max: 1.5, min: 0.5 },
    ]);
  });

  test("a dense model has no windows", () => {
    expect(windowLoads([{ step: 1, expertLoad: [] }], 10)).toEqual([]);
    expect(windowLoads([], 10)).toEqual([]);
  });

  test("the sliding sums equal sums made anew for every window", () => {
    const counts = fc.array(fc.tuple(fc.nat(50), fc.nat(50), fc.integer({ min: 1, max: 50 })), {
      minLength: 1,
    });
    fc.assert(
      fc.property(counts, fc.integer({ min: 1, max: 8 }), (rows, window) => {
        const width = Math.min(window, rows.length);
        const [windows] = windowLoads(stepsOf(rows), window);
        expect(windows).toHaveLength(rows.length - width + 1);
        for (const [index, { max, min }] of windows!.entries()) {
          const sums = [0, 1, 2].map((e) =>
            rows.slice(index, index + width).reduce((sum, row) => sum + row[e]!, 0),
          );
          const mean = (sums[0]! + sums[1]! + sums[2]!) / 3;
          expect(max).toBeCloseTo(Math.max(...sums) / mean, 12);
          expect(min).toBeCloseTo(Math.min(...sums) / mean, 12);
        }
      }),
    );
  });
});

describe("worstLoads", () => {
  test("finds the bad stretch wherever its window begins", () => {
    const counts = Array.from({ length: 300 }, (_, index) => (index >= 117 && index < 217 ? [9, 1] : [5, 5]));
    expect(worstLoads(stepsOf(counts), 100, 0)).toEqual([
      {
        layer: 3,
        highest: { layer: 3, firstStep: 118, lastStep: 217, max: 1.8, min: 0.2 },
        lowest: { layer: 3, firstStep: 118, lastStep: 217, max: 1.8, min: 0.2 },
      },
    ]);
  });

  test("the beginning does not count", () => {
    const counts = Array.from({ length: 100 }, (_, index) => (index < 20 ? [10, 0] : [5, 5]));
    expect(worstLoads(stepsOf(counts), 10, 0.2)[0]!.highest.max).toBe(1);
    expect(worstLoads(stepsOf(counts), 10, 0)[0]!.highest.max).toBe(2);
  });
});
