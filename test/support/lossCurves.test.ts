import { describe, expect, test } from "vitest";
import { distanceOf, drawCurves, smoothed, type Training } from "./lossCurves.ts";

const falling = Array.from({ length: 400 }, (_, i) => 2 + 6 * 0.98 ** i);

function training(arm: string, losses: readonly (number | null)[], validationLoss: number): Training {
  return { arm, seed: 0, losses, validationLoss };
}

describe("the distance of two trainings", () => {
  const base = training("bf16", falling, 2);

  test("is nothing for the same losses", () => {
    expect(distanceOf(base, base)).toEqual({ lastQuarter: 0, pointwise: 0, validation: 0 });
  });

  test("has the sign and size of a loss that is one per cent higher", () => {
    const higher = training(
      "fp8",
      falling.map((loss) => 1.01 * loss),
      1.98,
    );
    const { lastQuarter, pointwise, validation } = distanceOf(higher, base);
    expect([lastQuarter, pointwise, validation].map((value) => Number(value.toFixed(6)))).toEqual([
      0.01, 0.01, -0.01,
    ]);
  });

  test("sees a hump that the last quarter does not have", () => {
    const hump = training(
      "fp8",
      falling.map((loss, i) => (i > 150 && i < 200 ? 1.1 * loss : loss)),
      2,
    );
    const { lastQuarter, pointwise } = distanceOf(hump, base);
    expect(lastQuarter).toBe(0);
    expect(pointwise).toBeGreaterThan(0.09);
  });

  test("leaves out steps that either of them skipped", () => {
    const skipping = falling.map((loss, i) => (i === 350 ? null : loss));
    const other = falling.map((loss, i) => (i === 350 ? 100 * loss : i === 390 ? null : loss));
    const apart = distanceOf(training("fp8", other, 2), training("bf16", skipping, 2));
    expect(apart).toEqual({ lastQuarter: 0, pointwise: 0, validation: 0 });
  });

  test("refuses trainings of different lengths", () => {
    expect(() => distanceOf(training("fp8", [1, 2], 2), base)).toThrow("2 steps are compared with 400");
  });
});

test("an average of 0.9 keeps a level and forgets its first value", () => {
  expect(smoothed([3, 3, 3])).toEqual([3, 3, 3]);
  expect(smoothed([100, ...new Array<number>(66).fill(1)]).at(-1)! - 1).toBeLessThan(0.1);
});

test("drawings are whole SVG files", () => {
  for (const svg of drawCurves(training("fp8", falling, 2), training("bf16", falling, 2))) {
    expect(svg).toMatch(/^<svg xmlns=[\s\S]+<style>[\s\S]+<\/svg>$/);
  }
});
