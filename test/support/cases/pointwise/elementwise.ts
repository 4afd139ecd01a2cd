/** Cases of the elementwise kernels: lengths that are no multiple of a vector, none at all, each storage dtype. */

import {
  addCountsKernel,
  addKernel,
  axpyKernel,
  castKernel,
  copyKernel,
  copyRowKernel,
  fillKernel,
  scaleKernel,
} from "../../../../src/tensor/ops/elementwise.ts";
import type { OpCase } from "../../opCase.ts";
import { integers } from "../../random.ts";
import { DTYPES, dtypePairs, random, wanted, whole } from "../operands.ts";

export const elementwiseCases: readonly OpCase[] = [
  ...DTYPES.flatMap((dtype): OpCase[] => [
    {
      name: `fill ${dtype}`,
      kernel: fillKernel,
      operands: { y: wanted([131], dtype) },
      params: { n: 131, value: 0.1 },
      tolerance: "exact",
    },
    {
      name: `copy ${dtype}, more than one task`,
      kernel: copyKernel,
      operands: { x: random([70_001], dtype, 1), y: wanted([70_001], dtype) },
      params: { n: 70_001 },
      tolerance: "exact",
    },
    {
      name: `scale ${dtype}`,
      kernel: scaleKernel,
      operands: { y: random([77], dtype, 2) },
      params: { n: 77, alpha: -0.25 },
      tolerance: "exact",
    },
  ]),
  {
    name: "copy of integers",
    kernel: copyKernel,
    operands: { x: whole([33], integers(33, 1 << 30, 3)), y: { shape: [33], dtype: "i32" } },
    params: { n: 33 },
    tolerance: "exact",
  },
  ...([0, 4] as const).map(
    (row): OpCase => ({
      name: `row ${row} of five`,
      kernel: copyRowKernel,
      operands: { x: random([7], "f32", 1), table: random([5, 7], "f32", 2) },
      params: { n: 7, row },
      tolerance: "exact",
    }),
  ),
  {
    name: "counts beyond what f32 holds exactly",
    kernel: addCountsKernel,
    operands: { x: whole([33], integers(33, 1 << 29, 3)), y: whole([33], integers(33, 1 << 29, 4)) },
    params: { n: 33 },
    tolerance: "exact",
  },
  ...dtypePairs.flatMap(([from, to]): OpCase[] => [
    {
      name: `cast ${from} to ${to}`,
      kernel: castKernel,
      operands: { x: random([1025], from, 4), y: wanted([1025], to) },
      params: { n: 1025 },
      tolerance: "exact",
    },
    {
      name: `axpy ${from} into ${to}`,
      kernel: axpyKernel,
      operands: { x: random([301], from, 5), y: random([301], to, 6) },
      params: { n: 301, alpha: 0.3 },
      tolerance: to,
    },
    ...DTYPES.map(
      (sum): OpCase => ({
        name: `add ${from} and ${to} into ${sum}`,
        kernel: addKernel,
        operands: { a: random([65], from, 7), b: random([65], to, 8), y: wanted([65], sum) },
        params: { n: 65 },
        tolerance: sum,
      }),
    ),
  ]),
  {
    name: "scale of nothing",
    kernel: scaleKernel,
    operands: { y: random([0], "f32", 9) },
    params: { n: 0, alpha: 2 },
    tolerance: "exact",
  },
];
