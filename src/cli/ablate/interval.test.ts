import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { estimate, estimateDifference } from "./interval.ts";

describe("an interval", () => {
  test("is Student's: mean 5, deviation 2 of four values gives 3.182 * 2 / sqrt 4", () => {
    // Deviations -2.449, 0, 0, 2.449 around 5: their variance over three degrees of freedom is 4.
    const { mean, halfWidth } = estimate([5 - Math.sqrt(6), 5, 5, 5 + Math.sqrt(6)]);
    expect(mean).toBeCloseTo(5, 12);
    expect(halfWidth).toBeCloseTo(3.182, 9);
  });

  test("has Student's quantile beyond the table too: 40, 60, 120 degrees of freedom, and no jump behind 30", () => {
    // One value of 1 among zeros: the half width over the deviation of the mean is the quantile.
    const quantile = (degrees: number): number => {
      const n = degrees + 1;
      const values = Array.from({ length: n }, (_, i) => (i === 0 ? 1 : 0));
      const deviation = Math.sqrt((1 - 1 / n) / degrees / n);
      return estimate(values).halfWidth! / deviation;
    };
    expect(quantile(30)).toBeCloseTo(2.042, 9);
    // Any table of Student's t, to four decimals.
    for (const [degrees, t] of [
      [31, 2.0395],
      [40, 2.0211],
      [60, 2.0003],
      [99, 1.9842],
      [120, 1.9799],
    ] as const)
      expect(quantile(degrees)).toBeCloseTo(t, 4);
  });

  test("of one run is not known", () => {
    expect(estimate([1.5])).toEqual({ mean: 1.5, halfWidth: null });
  });

  test("covers the true mean about 95 times in 100", () => {
    let [covered, state] = [0, 1];
    const uniform = (): number => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return (state + 0.5) / 2 ** 32;
    };
    const normal = (): number => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
    for (let i = 0; i < 4000; i++) {
      const { mean, halfWidth } = estimate([normal(), normal(), normal()]);
      if (Math.abs(mean) <= halfWidth!) covered++;
    }
    expect(covered / 4000).toBeGreaterThan(0.935);
    expect(covered / 4000).toBeLessThan(0.965);
  });

  test("of differences forgets what the seeds have in common", () => {
    const seeds = fc.array(fc.double({ min: -9, max: 9, noNaN: true }), { minLength: 2, maxLength: 9 });
    fc.assert(
      fc.property(seeds, (values) => {
        const { mean, halfWidth } = estimateDifference(
          values.map((value) => value - 0.25),
          values,
        );
        expect(mean).toBeCloseTo(-0.25, 9);
        expect(halfWidth).toBeCloseTo(0, 9);
      }),
    );
  });
});
