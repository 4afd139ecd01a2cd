/** Cases of where tokens go: the plan over experts and their load; copies for units of experts, and the rows that are gathered. */

import { gatherRowsKernel, planCopiesKernel } from "../../../../src/tensor/ops/moe/copies.ts";
import { dispatchPlanKernel, expertLoadKernel } from "../../../../src/tensor/ops/moe/dispatch.ts";
import type { OpCase } from "../../opCase.ts";
import { normals } from "../../random.ts";
import { DTYPES, random, whole } from "../operands.ts";
import { makeExpertIds, slotsByExpert } from "./routed.ts";

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

export const dispatchCases: readonly OpCase[] = [
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

function copyCase(
  name: string,
  [T, K, E, U]: readonly [number, number, number, number],
  expertIds: readonly number[],
  room: number = 0,
): OpCase {
  const slots = slotsByExpert(expertIds);
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

export const copyCases: readonly OpCase[] = [
  copyCase("200 tokens, 4 of 16 experts, 4 units", [200, 4, 16, 4], makeExpertIds(200, 4, 16, 81)),
  copyCase("a unit for each expert", [9, 3, 6, 6], makeExpertIds(9, 3, 6, 82)),
  copyCase("one unit, room behind the rows", [9, 3, 6, 1], makeExpertIds(9, 3, 6, 83), 7),
  copyCase("all to the last unit", [5, 2, 8, 4], Array<number[]>(5).fill([6, 7]).flat()),
  copyCase("no token", [0, 2, 4, 2], []),
  ...DTYPES.map(
    (dtype): OpCase => ({
      name: `${dtype}, rows twice, absent rows, room behind the count`,
      kernel: gatherRowsKernel,
      operands: {
        x: random([5, 33], dtype, 84),
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
