/** Cases between the experts' products: SwiGLU of a part of the rows, rows weighed by their slots, and gradients of both. */

import { mixtureBackwardKernel, weighRowsKernel } from "../../../../src/tensor/ops/moe/mixture.ts";
import { swigluBackwardKernel, swigluKernel } from "../../../../src/tensor/ops/swiglu.ts";
import type { OpCase } from "../../opCase.ts";
import { DTYPES, type Float, random, whole } from "../operands.ts";
import { makeExpertIds, makeSlotRows } from "./routed.ts";

function mixtureCasesOf(
  name: string,
  [T, K, F]: readonly [number, number, number],
  [gradient, rows]: readonly [Float, Float],
): OpCase[] {
  const expertIds = makeExpertIds(T, K, 2 * K, 61);
  const slots = { slotRow: whole([T, K], makeSlotRows(expertIds)), weights: random([T, K], "f32", 64) };
  const params = { T, K, F };
  return [
    {
      name,
      kernel: mixtureBackwardKernel,
      operands: {
        dHidden: random([T * K, F], gradient, 62),
        hidden: random([T * K, F], rows, 63),
        ...slots,
        dWeights: { shape: [T, K], dtype: "f32" },
      },
      params,
      tolerance: { dHidden: gradient, dWeights: "f32" },
    },
    {
      name,
      kernel: weighRowsKernel,
      operands: { x: random([T * K, F], rows, 63), ...slots, y: { shape: [T * K, F], dtype: gradient } },
      params,
      tolerance: gradient,
    },
  ];
}

/** Rows that others have sorted: in order, and fewer than there is room for. */
const raggedMixtureCases: readonly OpCase[] = mixtureCasesOf("in order", [7, 1, 40], ["bf16", "bf16"]).map(
  (opCase): OpCase => ({
    ...opCase,
    name: "rows in order, five of seven there",
    operands: { ...opCase.operands, slotRow: null, count: whole([1], [5]) },
  }),
);

/** SwiGLU of rows that are fewer than there is room for. */
const raggedSwigluCases: readonly OpCase[] = DTYPES.flatMap((dtype): OpCase[] => {
  const [R, F, count] = [9, 33, whole([1], [4])];
  const common = { params: { R, F }, tolerance: dtype, name: `${dtype}, 4 of 9 rows there` };
  const x = random([R, 2 * F], dtype, 91);
  return [
    { ...common, kernel: swigluKernel, operands: { x, y: { shape: [R, F], dtype }, count } },
    {
      ...common,
      kernel: swigluBackwardKernel,
      operands: { x, dy: random([R, F], dtype, 92), dx: { shape: [R, 2 * F], dtype }, count },
    },
  ];
});

export const mixtureCases: readonly OpCase[] = [
  ...raggedSwigluCases,
  ...raggedMixtureCases,
  ...mixtureCasesOf("all bf16", [150, 4, 128], ["bf16", "bf16"]),
  ...mixtureCasesOf("all f32, odd width", [11, 3, 65], ["f32", "f32"]),
  ...mixtureCasesOf("f32 gradient of bf16 rows", [5, 8, 100], ["f32", "bf16"]),
  ...mixtureCasesOf("bf16 gradient of f32 rows", [4, 2, 1000], ["bf16", "f32"]),
  ...mixtureCasesOf("narrower than a vector", [2, 1, 3], ["f32", "f32"]),
];
