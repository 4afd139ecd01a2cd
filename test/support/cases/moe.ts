/**
 * Cases of the MoE kernels: expert counts that are no power of two, one group and many, ties, NaN,
 * ragged sequences, groups longer than one loop takes, and each storage dtype on each operand.
 */

import { combineKernel } from "../../../src/tensor/ops/moe/combine.ts";
import { gatherRowsKernel, planCopiesKernel } from "../../../src/tensor/ops/moe/copies.ts";
import { dispatchPlanKernel, expertLoadKernel } from "../../../src/tensor/ops/moe/dispatch.ts";
import { mixtureBackwardKernel, weighRowsKernel } from "../../../src/tensor/ops/moe/mixture.ts";
import { routerBackwardKernel, routerKernel } from "../../../src/tensor/ops/moe/route.ts";
import { updateRouterBiasKernel } from "../../../src/tensor/ops/moe/routerBias.ts";
import {
  sequenceBalanceBackwardKernel,
  sequenceBalanceKernel,
} from "../../../src/tensor/ops/moe/sequenceBalance.ts";
import { swigluBackwardKernel, swigluKernel } from "../../../src/tensor/ops/swiglu.ts";
import type { CaseOperand, OpCase } from "../opCase.ts";
import { integers, makeRandom, normals } from "../random.ts";
import type { ToleranceClass } from "../tolerance.ts";

type Float = "f32" | "bf16";

function given(shape: readonly number[], values: ArrayLike<number>, dtype: Float = "f32"): CaseOperand {
  return { shape, dtype, values };
}

function whole(shape: readonly number[], values: ArrayLike<number>): CaseOperand {
  return { shape, dtype: "i32", values };
}

function random(shape: readonly number[], seed: number, dtype: Float = "f32", std: number = 1): CaseOperand {
  const size = shape.reduce((product, dim) => product * dim, 1);
  return given(shape, normals(size, seed, std), dtype);
}

function toleranceOf(dtype: Float): ToleranceClass {
  return dtype === "bf16" ? "bf16" : "f32";
}

/** K different experts for each of T tokens, ascending. */
function makeExpertIds(T: number, K: number, E: number, seed: number): number[] {
  const next = makeRandom(seed);
  return Array.from({ length: T }, () => {
    const rest = [...Array(E).keys()];
    const chosen = Array.from({ length: K }, () => rest.splice(Math.floor(next() * rest.length), 1)[0]!);
    return chosen.sort((a, b) => a - b);
  }).flat();
}

/** The row of each slot as a stable sort by expert gives it. */
function makeSlotRows(expertIds: readonly number[]): number[] {
  const order = [...expertIds.keys()].sort((a, b) => expertIds[a]! - expertIds[b]! || a - b);
  const rows: number[] = [];
  for (const [row, slot] of order.entries()) rows[slot] = row;
  return rows;
}

function affinities(T: number, E: number, seed: number): Float64Array {
  return normals(T * E, seed, 1.5).map((x) => 1 / (1 + Math.exp(-x)));
}

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

const routerCases: readonly OpCase[] = [
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
      dWeights: random([T, K], 21),
      dAffinity: options.hasAffinity ? random([T, E], 22, "f32", 0.1) : null,
      affinity: given([T, E], affinities(T, E, 23)),
      expertIds: whole([T, K], makeExpertIds(T, K, E, 24)),
      dlogits: { shape: [T, E], dtype },
    },
    params: { T, E, K, scale: 2.5, normalise: options.normalise },
    tolerance: toleranceOf(dtype),
  };
}

const routerBackwardCases: readonly OpCase[] = [
  routerBackwardCase("both gradients", [130, 16, 4], { hasAffinity: true, normalise: 1 }),
  routerBackwardCase("from the weights alone", [7, 30, 5], { hasAffinity: false, normalise: 1 }),
  routerBackwardCase("not normalised", [5, 12, 3], { hasAffinity: true, normalise: 0 }),
  routerBackwardCase("written as bf16", [9, 64, 8], { hasAffinity: true, normalise: 1, dtype: "bf16" }),
  routerBackwardCase("one expert of two", [3, 2, 1], { hasAffinity: false, normalise: 0 }),
];

function balanceCases(name: string, T: number, E: number, K: number, offsets: readonly number[]): OpCase[] {
  const S = offsets.length - 1;
  const affinity = given([T, E], affinities(T, E, 31));
  const seqOffsets = whole([S + 1], offsets);
  const params = { T, E, K, S, alpha: 0.125 };
  return [
    {
      name,
      kernel: sequenceBalanceKernel,
      operands: {
        affinity,
        seqOffsets,
        load: { shape: [S, E], dtype: "f32" },
        loss: { shape: [1], dtype: "f32" },
      },
      params,
      tolerance: { load: "exact", loss: "f32" },
    },
    {
      name,
      kernel: sequenceBalanceBackwardKernel,
      operands: {
        affinity,
        seqOffsets,
        load: given([S, E], integers(S * E, T + 1, 32)),
        dAffinity: { shape: [T, E], dtype: "f32" },
      },
      params,
      tolerance: "f32",
    },
  ];
}

const sequenceBalanceCases: readonly OpCase[] = [
  ...balanceCases("ragged sequences, two of them empty", 700, 16, 4, [0, 63, 64, 129, 130, 400, 700, 700]),
  ...balanceCases("one sequence of 100 experts", 130, 100, 8, [0, 130]),
  ...balanceCases("tokens before and after all sequences", 10, 5, 2, [2, 6, 8]),
  ...balanceCases("no token in any sequence", 3, 4, 2, [0, 0, 0]),
  ...balanceCases("one token, every expert chosen", 1, 3, 3, [0, 1]),
];

function dispatchCase(name: string, T: number, K: number, E: number, expertIds: readonly number[]): OpCase {
  return {
    name,
    kernel: dispatchPlanKernel,
    operands: {
      expertIds: whole([T, K], expertIds),
      offsets: { shape: [E + 1], dtype: "i32" },
      rows: { shape: [T * K], dtype: "i32" },
      slotRow: { shape: [T, K], dtype: "i32" },
    },
    params: { T, K, E },
    tolerance: "exact",
  };
}

const dispatchCases: readonly OpCase[] = [
  dispatchCase("500 tokens, 4 of 16 experts", 500, 4, 16, makeExpertIds(500, 4, 16, 41)),
  dispatchCase("most of 300 experts stay empty", 20, 8, 300, makeExpertIds(20, 8, 300, 42)),
  dispatchCase("everyone to the last expert", 3, 1, 5, [4, 4, 4]),
  dispatchCase("no token", 0, 2, 4, []),
  {
    name: "three experts, one idle",
    kernel: expertLoadKernel,
    operands: { offsets: whole([4], [0, 5, 5, 12]), load: whole([3], [100, 7, -1]) },
    params: { E: 3 },
    tolerance: "exact",
  },
];

interface CombineOptions {
  readonly groupSize: number;
  readonly experts: number;
  readonly rows?: Float;
  readonly shared?: Float | null;
  readonly y?: Float;
  readonly hasWeights?: boolean;
}

function combineCase(
  name: string,
  [T, K, D]: readonly [number, number, number],
  options: CombineOptions,
): OpCase {
  const { groupSize, experts, rows = "f32", shared = "f32", y = "f32", hasWeights = true } = options;
  const expertIds = makeExpertIds(T, K, experts, 51 + T);
  return {
    name,
    kernel: combineKernel,
    operands: {
      x: random([T * K, D], 52, rows),
      slotRow: whole([T, K], makeSlotRows(expertIds)),
      expertIds: whole([T, K], expertIds),
      weights: hasWeights ? random([T, K], 53) : null,
      shared: shared === null ? null : random([T, D], 54, shared),
      y: { shape: [T, D], dtype: y },
    },
    params: { T, K, D, R: T * K, groupSize },
    tolerance: toleranceOf(y),
  };
}

const halves = { rows: "bf16", shared: "bf16", y: "bf16" } as const;

const combineCases: readonly OpCase[] = [
  combineCase("groups of 4, all bf16", [200, 4, 256], { groupSize: 4, experts: 16, ...halves }),
  combineCase("all f32, odd width", [13, 3, 37], { groupSize: 2, experts: 6 }),
  combineCase("one group of 9 slots", [5, 9, 100], { groupSize: 20, experts: 20 }),
  combineCase("two long groups", [4, 16, 33], { groupSize: 12, experts: 24, rows: "bf16" }),
  combineCase("wider than one block, f32 into bf16", [3, 2, 1500], { groupSize: 4, experts: 8, y: "bf16" }),
  combineCase("unit weights, no shared expert", [21, 4, 64], {
    groupSize: 2,
    experts: 8,
    shared: null,
    hasWeights: false,
    ...{ rows: "bf16", y: "bf16" },
  }),
  combineCase("bf16 rows, f32 shared and sum", [6, 2, 16], { groupSize: 1, experts: 3, rows: "bf16" }),
  combineCase("one slot", [1, 1, 1], { groupSize: 1, experts: 1 }),
  combineCase("no token", [0, 2, 8], { groupSize: 2, experts: 4 }),
  {
    name: "tokens with fewer rows than slots, no groups, two of four tokens there",
    kernel: combineKernel,
    operands: {
      x: random([3, 20], 55, "bf16"),
      slotRow: whole([4, 3], [2, 0, -1, 1, -1, -1, 99, 99, 99, 99, 99, 99]),
      weights: random([4, 3], 56),
      y: { shape: [4, 20], dtype: "f32" },
      count: whole([1], [2]),
    },
    params: { T: 4, K: 3, D: 20, R: 3, groupSize: 1 },
    tolerance: "f32",
  },
];

function copyCase(
  name: string,
  [T, K, E, U]: readonly [number, number, number, number],
  expertIds: readonly number[],
  room: number = 0,
): OpCase {
  const slots = [...expertIds.keys()].sort((a, b) => expertIds[a]! - expertIds[b]! || a - b);
  const offsets = Array.from({ length: E + 1 }, (_, e) => expertIds.filter((id) => id < e).length);
  const [R, C] = [T * K + room, T * Math.min(K, U)];
  return {
    name,
    kernel: planCopiesKernel,
    operands: {
      offsets: whole([E + 1], offsets),
      rows: whole([R], [...slots.map((slot) => Math.floor(slot / K)), ...Array<number>(room).fill(-5)]),
      headers: { shape: [U, E / U + 3], dtype: "i32" },
      bounds: { shape: [U + 1], dtype: "i32" },
      tokens: { shape: [C], dtype: "i32" },
      rowCopy: { shape: [R], dtype: "i32" },
      copyRows: { shape: [C, K], dtype: "i32" },
      tokenCopies: { shape: [T, K], dtype: "i32" },
    },
    params: { T, K, E, U, R, C },
    tolerance: "exact",
  };
}

const copyCases: readonly OpCase[] = [
  copyCase("200 tokens, 4 of 16 experts, 4 units", [200, 4, 16, 4], makeExpertIds(200, 4, 16, 81)),
  copyCase("a unit for each expert", [9, 3, 6, 6], makeExpertIds(9, 3, 6, 82)),
  copyCase("one unit, room behind the rows", [9, 3, 6, 1], makeExpertIds(9, 3, 6, 83), 7),
  copyCase("all to the last unit", [5, 2, 8, 4], Array<number[]>(5).fill([6, 7]).flat()),
  copyCase("no token", [0, 2, 4, 2], []),
  ...(["f32", "bf16"] as const).map(
    (dtype): OpCase => ({
      name: `${dtype}, rows twice, absent rows, room behind the count`,
      kernel: gatherRowsKernel,
      operands: {
        x: random([5, 33], 84, dtype),
        rows: whole([6], [4, 0, -1, 4, 99, -99]),
        count: whole([1], [4]),
        y: { shape: [6, 33], dtype },
      },
      params: { R: 6, width: 33 },
      tolerance: "exact",
    }),
  ),
  {
    name: "codes, byte by byte",
    kernel: gatherRowsKernel,
    operands: {
      x: { shape: [3, 130], dtype: "f8e4m3", values: normals(390, 85, 100) },
      rows: whole([2], [2, 1]),
      y: { shape: [2, 130], dtype: "f8e4m3" },
    },
    params: { R: 2, width: 130 },
    tolerance: "exact",
  },
];

function mixtureCases(
  name: string,
  [T, K, F]: readonly [number, number, number],
  [gradient, rows]: readonly [Float, Float],
): OpCase[] {
  const expertIds = makeExpertIds(T, K, 2 * K, 61);
  const slots = { slotRow: whole([T, K], makeSlotRows(expertIds)), weights: random([T, K], 64) };
  const params = { T, K, F };
  return [
    {
      name,
      kernel: mixtureBackwardKernel,
      operands: {
        dHidden: random([T * K, F], 62, gradient),
        hidden: random([T * K, F], 63, rows),
        ...slots,
        dWeights: { shape: [T, K], dtype: "f32" },
      },
      params,
      tolerance: { dHidden: toleranceOf(gradient), dWeights: "f32" },
    },
    {
      name,
      kernel: weighRowsKernel,
      operands: { x: random([T * K, F], 63, rows), ...slots, y: { shape: [T * K, F], dtype: gradient } },
      params,
      tolerance: toleranceOf(gradient),
    },
  ];
}

/** Rows that others have sorted: in order, and fewer than there is room for. */
const raggedMixtureCases: readonly OpCase[] = mixtureCases("in order", [7, 1, 40], ["bf16", "bf16"]).map(
  (whole): OpCase => ({
    ...whole,
    name: "rows in order, five of seven there",
    operands: { ...whole.operands, slotRow: null, count: { shape: [1], dtype: "i32", values: [5] } },
  }),
);

/** SwiGLU of rows that are fewer than there is room for. */
const raggedSwigluCases: readonly OpCase[] = (["f32", "bf16"] as const).flatMap((dtype): OpCase[] => {
  const [R, F, count] = [9, 33, whole([1], [4])];
  const common = { params: { R, F }, tolerance: toleranceOf(dtype), name: `${dtype}, 4 of 9 rows there` };
  const x = random([R, 2 * F], 91, dtype);
  return [
    { ...common, kernel: swigluKernel, operands: { x, y: { shape: [R, F], dtype }, count } },
    {
      ...common,
      kernel: swigluBackwardKernel,
      operands: { x, dy: random([R, F], 92, dtype), dx: { shape: [R, 2 * F], dtype }, count },
    },
  ];
});

const allMixtureCases: readonly OpCase[] = [
  ...raggedSwigluCases,
  ...raggedMixtureCases,
  ...mixtureCases("all bf16", [150, 4, 128], ["bf16", "bf16"]),
  ...mixtureCases("all f32, odd width", [11, 3, 65], ["f32", "f32"]),
  ...mixtureCases("f32 gradient of bf16 rows", [5, 8, 100], ["f32", "bf16"]),
  ...mixtureCases("bf16 gradient of f32 rows", [4, 2, 1000], ["bf16", "f32"]),
  ...mixtureCases("narrower than a vector", [2, 1, 3], ["f32", "f32"]),
];

function biasCase(name: string, load: readonly number[], gamma: number): OpCase {
  const E = load.length;
  return {
    name,
    kernel: updateRouterBiasKernel,
    operands: { bias: random([E], 71), load: whole([E], load) },
    params: { E, gamma },
    tolerance: "f32",
  };
}

const biasCases: readonly OpCase[] = [
  biasCase("busy, idle and even experts", [10, 2, 6, 4, 8], 0.001),
  biasCase("a mean that is no binary fraction", [1, 2, 3], 0.01),
  biasCase("a frozen bias", [9, 0], 0),
  biasCase("loads near the limit", [2 ** 31 - 1, 2 ** 31 - 1, 0], 0.001),
];

export const moeCases: readonly OpCase[] = [
  ...copyCases,
  ...routerCases,
  ...routerBackwardCases,
  ...sequenceBalanceCases,
  ...dispatchCases,
  ...combineCases,
  ...allMixtureCases,
  ...biasCases,
];
