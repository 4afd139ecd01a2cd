/** Cases of combine: groups longer than one loop takes, each storage dtype on each operand, slots without a row. */

import { combineKernel } from "../../../../src/tensor/ops/moe/combine.ts";
import type { OpCase } from "../../opCase.ts";
import { type Float, random, whole } from "../operands.ts";
import { makeExpertIds, makeSlotRows } from "./routed.ts";

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
      x: random([T * K, D], rows, 52),
      slotRow: whole([T, K], makeSlotRows(expertIds)),
      expertIds: whole([T, K], expertIds),
      weights: hasWeights ? random([T, K], "f32", 53) : null,
      shared: shared === null ? null : random([T, D], shared, 54),
      y: { shape: [T, D], dtype: y },
    },
    params: { T, K, D, R: T * K, groupSize },
    tolerance: y,
  };
}

const halves = { rows: "bf16", shared: "bf16", y: "bf16" } as const;

export const combineCases: readonly OpCase[] = [
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
      x: random([3, 20], "bf16", 55),
      slotRow: whole([4, 3], [2, 0, -1, 1, -1, -1, 99, 99, 99, 99, 99, 99]),
      weights: random([4, 3], "f32", 56),
      y: { shape: [4, 20], dtype: "f32" },
      count: whole([1], [2]),
    },
    params: { T: 4, K: 3, D: 20, R: 3, groupSize: 1 },
    tolerance: "f32",
  },
];
