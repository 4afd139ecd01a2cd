import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Point, smooth, sparkline, thin, ticks } from "./series.ts";

const line = (ys: readonly number[]): Point[] => ys.map((y, index) => ({ x: index + 1, y }));

describe("thin", () => {
  test("keeps all points while they are few", () => {
    expect(thin(line([3, 1, 2]), 10)).toEqual(line([3, 1, 2]));
  });

  test("keeps the lowest and the highest point and the order, in about as many points as asked for", () => {
    const values = fc.array(fc.double({ noNaN: true, min: -1e6, max: 1e6 }), {
      minLength: 30,
      maxLength: 400,
    });
    fc.assert(
      fc.property(values, (ys) => {
        const kept = thin(line(ys), 20);
        expect(kept.length).toBeLessThanOrEqual(20);
        const keptYs = kept.map(({ y }) => y);
        expect(Math.max(...keptYs)).toBe(Math.max(...ys));
        expect(Math.min(...keptYs)).toBe(Math.min(...ys));
        expect(kept.map(({ x }) => x)).toEqual(kept.map(({ x }) => x).toSorted((a, b) => a - b));
      }),
    );
  });
});

describe("smooth", () => {
  test("leaves a straight line where it is: it does not lag", () => {
    const straight = line(Array.from({ length: 50 }, (_, index) => 9 - 0.1 * index));
    const smoothed = smooth(straight, 10);
    for (const [index, { y }] of smoothed.slice(0, -5).entries())
      expect(y).toBeCloseTo(straight[index]!.y, 9);
  });

  test("is the mean of the points around, and of the last half stretch at the end", () => {
    const ys = smooth(line([0, 6, 0, 6, 0, 6]), 4).map(({ y }) => y);
    expect(ys[0]).toBe(0);
    expect(ys[2]).toBe((0 + 6 + 0 + 6 + 0) / 5);
    expect(ys[5]).toBe((6 + 0 + 6) / 3);
  });

  test("a span of one changes nothing", () => {
    expect(smooth(line([5, 1, 4]), 1)).toEqual(line([5, 1, 4]));
    expect(smooth([], 5)).toEqual([]);
  });
});

describe("ticks", () => {
  test.each([
    [0, 10, [0, 2, 4, 6, 8, 10]],
    [3.1, 7.96, [3, 4, 5, 6, 7, 8]],
    [0, 0.002, [0, 0.0005, 0.001, 0.0015, 0.002]],
    [0, 1200, [0, 500, 1000, 1500]],
  ])("from %f to %f are round and cover both", (low, high, expected) => {
    expect(ticks(low, high, high === 1200 ? 4 : 5)).toEqual(expected);
  });

  test("cover any range, in few steps, with no number that is not round", () => {
    const number = fc.double({ min: -1e9, max: 1e9, noNaN: true });
    fc.assert(
      fc.property(number, number, (a, b) => {
        const [low, high] = [Math.min(a, b), Math.max(a, b)];
        fc.pre(high - low > 1e-6 * Math.max(1, Math.abs(low), Math.abs(high)));
        const all = ticks(low, high, 5);
        const step = all[1]! - all[0]!;
        expect(all[0]).toBeLessThanOrEqual(low + 1e-6 * step);
        expect(all.at(-1)).toBeGreaterThanOrEqual(high - 1e-6 * step);
        expect(all.length).toBeGreaterThanOrEqual(2);
        expect(all.length).toBeLessThanOrEqual(8);
      }),
    );
  });

  test("a range of one value, or of its rounding errors, has two different ticks around it", () => {
    for (const value of [0, 5, -0.3, 2.885]) {
      const all = ticks(value, value * (1 + Number.EPSILON), 5);
      expect(new Set(all).size).toBeGreaterThanOrEqual(2);
      expect(all[0]).toBeLessThanOrEqual(value);
      expect(all.at(-1)).toBeGreaterThanOrEqual(value);
    }
  });
});

describe("sparkline", () => {
  test("spans from the lowest to the highest block", () => {
    expect(sparkline([0, 1, 0.5])).toBe("▁█▅");
    expect(sparkline([2, 2])).toBe("▁▁");
    expect(sparkline([])).toBe("");
  });
});
