/** Cases of the router, forward and backward: expert counts that are no power of two, one group and many, ties, NaN. */

import { routerBackwardKernel, routerKernel } from "../../../../src/tensor/ops/moe/route.ts";
import type { OpCase } from "../../opCase.ts";
import { normals } from "../../random.ts";
import { type Float, given, random, whole } from "../operands.ts";
import { affinities, makeExpertIds } from "./routed.ts";

interface RouterShape {
  readonly T: number;
  readonly E: number;
  readonly K: number;
  readonly G: number;
  readonly topkGroup: number;
}

function routerCase(
  name: string,
  shape: RouterShape,
  values: { readonly logits?: ArrayLike<number>; readonly bias?: ArrayLike<number> } = {},
  normalise: number = 1,
): OpCase {
  const { T, E, K } = shape;
  return {
    name,
    kernel: routerKernel,
    operands: {
      logits: given([T, E], values.logits ?? normals(T * E, 11 + E, 2)),
      bias: given([E], values.bias ?? normals(E, 12 + E, 0.2)),
      affinity: { shape: [T, E], dtype: "f32" },
      expertIds: { shape: [T, K], dtype: "i32" },
      weights: { shape: [T, K], dtype: "f32" },
    },
    params: { ...shape, scale: 2.5, normalise },
    tolerance: { affinity: "f32", expertIds: "exact", weights: "f32" },
  };
}

const negative = [-0.9, -0.8, -0.85, -0.95, -1.2, -1.3, -1.1, -1.4];

export const routerCases: readonly OpCase[] = [
  routerCase("16 experts, 4 of them in 2 of 4 groups", { T: 300, E: 16, K: 4, G: 4, topkGroup: 2 }),
  routerCase("30 experts in 5 groups, 7 of them", { T: 33, E: 30, K: 7, G: 5, topkGroup: 3 }),
  routerCase("12 experts, one group open", { T: 5, E: 12, K: 3, G: 4, topkGroup: 1 }),
  routerCase("all groups open", { T: 9, E: 8, K: 4, G: 4, topkGroup: 4 }),
  routerCase("no groups, not normalised", { T: 17, E: 64, K: 6, G: 1, topkGroup: 1 }, {}, 0),
  routerCase("8 of 256 experts, as V3", { T: 10, E: 256, K: 8, G: 8, topkGroup: 4 }),
  routerCase("16 of 512 experts", { T: 3, E: 512, K: 16, G: 1, topkGroup: 1 }),
  routerCase("two experts, both chosen", { T: 4, E: 2, K: 2, G: 1, topkGroup: 1 }),
  routerCase("no token", { T: 0, E: 8, K: 2, G: 2, topkGroup: 1 }),
  routerCase(
    "every open score negative",
    { T: 1, E: 8, K: 2, G: 2, topkGroup: 1 },
    { logits: [0.4, -0.3, 1.2, 0.1, 0.5, 0.7, -1, 2], bias: negative },
  ),
  routerCase(
    "all scores tie",
    { T: 3, E: 12, K: 3, G: 4, topkGroup: 2 },
    { logits: new Float64Array(36), bias: new Float64Array(12) },
  ),
  routerCase(
    "NaN and infinite logits",
    { T: 3, E: 8, K: 2, G: 2, topkGroup: 1 },
    {
      logits: [3, 3, 3, 3, 0, 0, Number.NaN, 0, ...Array(8).fill(Number.NaN), ...Array(8).fill(-Infinity)],
      bias: new Float64Array(8),
    },
  ),
];

function routerBackwardCase(
  name: string,
  [T, E, K]: readonly [number, number, number],
  options: { readonly hasAffinity: boolean; readonly normalise: number; readonly dtype?: Float },
): OpCase {
  const dtype = options.dtype ?? "f32";
  return {
    name,
    kernel: routerBackwardKernel,
    operands: {
      dWeights: random([T, K], "f32", 21),
      dAffinity: options.hasAffinity ? random([T, E], "f32", 22, 0, 0.1) : null,
      affinity: given([T, E], affinities(T, E, 23)),
      expertIds: whole([T, K], makeExpertIds(T, K, E, 24)),
      dlogits: { shape: [T, E], dtype },
    },
    params: { T, E, K, scale: 2.5, normalise: options.normalise },
    tolerance: dtype,
  };
}

export const routerBackwardCases: readonly OpCase[] = [
  routerBackwardCase("both gradients", [130, 16, 4], { hasAffinity: true, normalise: 1 }),
  routerBackwardCase("from the weights alone", [7, 30, 5], { hasAffinity: false, normalise: 1 }),
  routerBackwardCase("not normalised", [5, 12, 3], { hasAffinity: true, normalise: 0 }),
  routerBackwardCase("written as bf16", [9, 64, 8], { hasAffinity: true, normalise: 1, dtype: "bf16" }),
  routerBackwardCase("one expert of two", [3, 2, 1], { hasAffinity: false, normalise: 0 }),
];
