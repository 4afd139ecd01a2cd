import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type OracleRouting, routeToken } from "../../../../test/oracle/moe.ts";
import { gradientError, makeOracleDevice } from "../../../../test/support/gradient.ts";
import { normals } from "../../../../test/support/random.ts";
import { distance, isWithin, tolerances } from "../../../../test/support/tolerance.ts";
import { DtypeError, ShapeError } from "../../../base/index.ts";
import type { Dtype } from "../../dtype.ts";
import { type RouteOptions, route } from "./route.ts";

const device = makeOracleDevice();

interface Routed {
  readonly affinity: number[];
  readonly expertIds: number[];
  readonly weights: number[];
}

async function routed(
  logits: ArrayLike<number>,
  bias: ArrayLike<number>,
  options: RouteOptions,
  dtype: Dtype = "f64",
): Promise<Routed> {
  using _scope = device.scope();
  const E = bias.length;
  const x = device.from(logits, [logits.length / E, E], dtype);
  const { affinity, expertIds, weights } = route(x, device.from(bias, [E], dtype), options);
  return {
    affinity: [...(await affinity.read())],
    expertIds: [...(await expertIds.read())],
    weights: [...(await weights.read())],
  };
}

function logit(s: number): number {
  return Math.log(s / (1 - s));
}

/** Routings whose numbers fit together; sizes need not be powers of two. */
const routings: fc.Arbitrary<OracleRouting> = fc
  .record({ groups: fc.integer({ min: 1, max: 6 }), size: fc.integer({ min: 2, max: 9 }) })
  .chain(({ groups, size }) =>
    fc.integer({ min: 1, max: groups }).chain((topkGroup) =>
      fc.record({
        experts: fc.constant(groups * size),
        groups: fc.constant(groups),
        topkGroup: fc.constant(topkGroup),
        topK: fc.integer({ min: 1, max: Math.min(16, topkGroup * size) }),
        scale: fc.constantFrom(1, 2.5, 2.827),
        normalise: fc.boolean(),
      }),
    ),
  );

/** A routing with scores for `tokens` tokens, among them coarse ones that tie often. */
const problems = routings.chain((routing) => {
  const score = fc.oneof(fc.double({ min: -8, max: 8, noNaN: true }), fc.integer({ min: -2, max: 2 }));
  const bias = fc.oneof(fc.double({ min: -2, max: 1, noNaN: true }), fc.constantFrom(-1.5, -1, 0, 0.5));
  return fc.record({
    routing: fc.constant(routing),
    logits: fc.array(score, { minLength: 3 * routing.experts, maxLength: 3 * routing.experts }),
    bias: fc.array(bias, { minLength: routing.experts, maxLength: routing.experts }),
  });
});

describe("route", () => {
  test("gives the released code's choice with biases and two of four groups", async () => {
    const logits = [0.9, 0.1, 0.6, 0.55, 0.8, 0.2, 0.3, 0.25].map(logit);
    const bias = [-0.3, 0, 0, 0, 0, 0, 0.2, 0.2];
    const options = { topK: 2, groups: 4, topkGroup: 2, scale: 2.5, normalise: true };
    const limited = await routed(logits, bias, options);
    expect(limited.expertIds).toEqual([2, 4]);
    expect(limited.weights[0]).toBeCloseTo(1.071429, 6);
    expect(limited.weights[1]).toBeCloseTo(1.428571, 6);
    const free = await routed(logits, new Float64Array(8), { ...options, groups: 1, topkGroup: 1 });
    expect(free.expertIds).toEqual([0, 4]);
    expect(free.weights[0]).toBeCloseTo(1.323529, 6);
    expect(free.weights[1]).toBeCloseTo(1.176471, 6);
  });

  describe("on the eight logits of the checkpoint reference", () => {
    const logits = [0.4, -0.3, 1.2, 0.1, 0.5, 0.7, -1, 2];
    const options = { topK: 2, groups: 2, topkGroup: 1, scale: 2.5, normalise: true };

    test("keeps to the better group although the best expert is outside it", async () => {
      const bias = [0.1, -0.1, 0, 0.05, -0.2, -0.3, 0.2, 0];
      const { affinity, expertIds, weights } = await routed(logits, bias, options);
      const expected = [0.598688, 0.425557, 0.768525, 0.524979, 0.622459, 0.668188, 0.268941, 0.880797];
      for (const [e, s] of expected.entries()) expect(affinity[e]).toBeCloseTo(s, 6);
      expect(expertIds).toEqual([0, 2]);
      expect(weights[0]).toBeCloseTo(1.094723, 6);
      expect(weights[1]).toBeCloseTo(1.405277, 6);
      const free = await routed(logits, bias, { ...options, groups: 1 });
      expect(free.expertIds).toEqual([2, 7]);
    });

    test("never lets a closed group supply an expert when every open score is negative", async () => {
      const bias = [-0.9, -0.8, -0.85, -0.95, -1.2, -1.3, -1.1, -1.4];
      const { expertIds, weights } = await routed(logits, bias, options);
      expect(expertIds).toEqual([0, 2]);
      expect(weights[0]).toBeCloseTo(1.094723, 6);
    });
  });

  test("equals the oracle on random scores, biases and group limits, ties included", async () => {
    await fc.assert(
      fc.asyncProperty(problems, async ({ routing, logits, bias }) => {
        const E = routing.experts;
        const found = await routed(logits, bias, routing);
        const expected = [0, 1, 2].map((t) => routeToken(logits.slice(t * E, (t + 1) * E), bias, routing));
        expect(found.expertIds).toEqual(expected.flatMap(({ expertIds }) => expertIds));
        const weights = expected.flatMap((token) => token.weights);
        expect(isWithin(distance(found.weights, weights), tolerances.oracle)).toBe(true);
        const affinity = expected.flatMap((token) => token.affinity);
        expect(isWithin(distance(found.affinity, affinity), tolerances.oracle)).toBe(true);
      }),
      { numRuns: 150 },
    );
  });

  test("a token never leaves its topkGroup groups, and visits no expert twice", async () => {
    await fc.assert(
      fc.asyncProperty(problems, async ({ routing, logits, bias }) => {
        const { expertIds } = await routed(logits, bias, routing, "f32");
        const size = routing.experts / routing.groups;
        for (let t = 0; t < 3; t++) {
          const ids = expertIds.slice(t * routing.topK, (t + 1) * routing.topK);
          expect(new Set(ids).size).toBe(routing.topK);
          expect(ids).toEqual(ids.toSorted((a, b) => a - b));
          const groups = new Set(ids.map((e) => Math.floor(e / size)));
          expect(groups.size).toBeLessThanOrEqual(routing.topkGroup);
          expect(ids.every((e) => e >= 0 && e < routing.experts)).toBe(true);
        }
      }),
      { numRuns: 100 },
    );
  });

  test("a token's normalised weights sum to the scale", async () => {
    await fc.assert(
      fc.asyncProperty(problems, async ({ routing, logits, bias }) => {
        const { weights } = await routed(logits, bias, { ...routing, normalise: true });
        for (let t = 0; t < 3; t++) {
          const row = weights.slice(t * routing.topK, (t + 1) * routing.topK);
          expect(row.reduce((a, b) => a + b, 0)).toBeCloseTo(routing.scale, 10);
        }
      }),
      { numRuns: 50 },
    );
  });

  test("between equal scores the lowest index wins, for experts and for groups", async () => {
    const flat = { topK: 3, groups: 1, topkGroup: 1, scale: 1, normalise: true };
    expect((await routed(new Float64Array(7), new Float64Array(7), flat)).expertIds).toEqual([0, 1, 2]);
    const grouped = { ...flat, topK: 2, groups: 3, topkGroup: 2 };
    const bias = [0, 0, 0, 0, 1, 0];
    expect((await routed(new Float64Array(6), bias, grouped)).expertIds).toEqual([0, 4]);
  });

  test("takes 16 of 512 experts", async () => {
    const logits = normals(512, 5);
    const options = { topK: 16, groups: 8, topkGroup: 4, scale: 2.5, normalise: true };
    const bias = normals(512, 6, 0.1);
    const { expertIds } = await routed(logits, bias, options);
    const expected = routeToken([...logits], [...bias], { experts: 512, ...options });
    expect(expertIds).toEqual(expected.expertIds);
  });

  test("gives weight zero, not NaN, where every chosen affinity underflows", async () => {
    const options = { topK: 2, groups: 1, topkGroup: 1, scale: 2.5, normalise: true };
    const { weights } = await routed(new Float64Array(4).fill(-800), new Float64Array(4), options);
    expect(weights).toEqual([0, 0]);
  });

  test("a NaN logit is chosen, so that it reaches the loss, and ids stay legal", async () => {
    const options = { topK: 2, groups: 2, topkGroup: 1, scale: 2.5, normalise: true };
    const one = await routed([3, 3, 3, 3, 0, 0, Number.NaN, 0], new Float64Array(8), options);
    expect(one.expertIds).toEqual([4, 6]);
    expect(one.weights.every(Number.isNaN)).toBe(true);
    const all = await routed(new Float64Array(8).fill(Number.NaN), new Float64Array(8), options);
    expect(all.expertIds).toEqual([0, 1]);
  });

  test("an expert with bias -Infinity is chosen only when nothing else is open", async () => {
    const bias = [Number.NEGATIVE_INFINITY, 0, 0, Number.NEGATIVE_INFINITY];
    const options = { topK: 2, groups: 1, topkGroup: 1, scale: 1, normalise: true };
    expect((await routed([9, 1, 2, 9], bias, options)).expertIds).toEqual([1, 2]);
    expect((await routed([9, 1, 2, 9], bias, { ...options, topK: 3 })).expertIds).toEqual([0, 1, 2]);
  });

  test("is empty for no token", async () => {
    const options = { topK: 2, groups: 1, topkGroup: 1, scale: 1, normalise: true };
    expect((await routed([], new Float64Array(4), options)).expertIds).toEqual([]);
  });

  test.each([true, false])("hands back the gradient of both outputs (normalise %s)", async (normalise) => {
    const [T, E] = [5, 12];
    const logits = device.from(normals(T * E, 1), [T, E], "f64");
    const bias = device.from(normals(E, 2, 0.3), [E], "f64");
    const options = { topK: 3, groups: 4, topkGroup: 2, scale: 2.5, normalise };
    const build = (outputs: "both" | "weights" | "affinity") => () => {
      const { affinity, weights } = route(logits, bias, options);
      return outputs === "both" ? [affinity, weights] : [outputs === "weights" ? weights : affinity];
    };
    for (const outputs of ["both", "weights", "affinity"] as const) {
      const problem = { inputs: [logits], parameters: [], build: build(outputs) };
      const { worst } = await gradientError(device, problem);
      expect(worst, outputs).toBeLessThan(1e-6);
    }
  });

  test("names operands of the wrong shape or dtype", () => {
    using _scope = device.scope();
    const logits = device.from(new Float64Array(8), [2, 4], "f32");
    const options = { topK: 2, groups: 2, topkGroup: 1, scale: 1, normalise: true };
    const bias = device.from(new Float64Array(5), [5], "f32");
    expect(() => route(logits, bias, options)).toThrow(/route: bias is \[5\], it must be \[4\]/);
    const halves = device.from(new Float64Array(8), [2, 4], "bf16");
    expect(() => route(halves, bias, options)).toThrow(DtypeError);
  });

  test("refuses groups and counts that do not fit together", () => {
    using _scope = device.scope();
    const logits = device.from(new Float64Array(12), [2, 6], "f32");
    const bias = device.from(new Float64Array(6), [6], "f32");
    const options = { topK: 2, groups: 2, topkGroup: 1, scale: 1, normalise: true };
    const attempt = (change: Partial<RouteOptions>) => () => route(logits, bias, { ...options, ...change });
    for (const change of [{ groups: 4 }, { groups: 6 }, { groups: 0 }, { topkGroup: 3 }, { topkGroup: 0 }]) {
      expect(attempt(change)).toThrow(ShapeError);
    }
    expect(attempt({ topK: 0 })).toThrow(ShapeError);
    expect(attempt({ topK: 4 })).toThrowErrorMatchingInlineSnapshot(`
      [ShapeError: route: 4 experts cannot be chosen in 1 of 2 groups of 3
        why: a token visits only experts of its topkGroup groups, each of them once
        fix: lower numExpertsPerTok to at most topkGroup * nRoutedExperts / nGroup, with topkGroup at most nGroup]
    `);
    expect(attempt({ groups: 4 })).toThrowErrorMatchingInlineSnapshot(`
      [ShapeError: route: 6 experts cannot be cut into 4 groups
        why: groups are of equal size, and a group's score is the sum of its two best experts
        fix: choose nGroup so that nRoutedExperts / nGroup is a whole number of at least 2, or 1 for no groups]
    `);
  });
});
