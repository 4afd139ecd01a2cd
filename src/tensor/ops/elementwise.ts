/** The plainest ops: fill, copy, convert, add, scale. Shapes stay as they are. */

import { invariant } from "../../base/index.ts";
import type { Dtype } from "../dtype.ts";
import { type Param, paramValue } from "../hostScalar.ts";
import { defineKernel, type Kernel } from "../kernel.ts";
import { requireDtype, requireShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";

export const fillKernel: Kernel = defineKernel({
  name: "fill",
  operands: { y: "out" },
  params: ["n", "value"],
  reference({ y }, { n, value }) {
    y.fill(value, 0, n);
  },
});

export const castKernel: Kernel = defineKernel({
  name: "cast",
  operands: { x: "in", y: "out" },
  params: ["n"],
  reference({ x, y }, { n }) {
    for (let i = 0; i < n; i++) y[i] = x[i]!;
  },
});

export const addKernel: Kernel = defineKernel({
  name: "add",
  operands: { a: "in", b: "in", y: "out" },
  params: ["n"],
  reference({ a, b, y }, { n }) {
    for (let i = 0; i < n; i++) y[i] = a[i]! + b[i]!;
  },
});

export const axpyKernel: Kernel = defineKernel({
  name: "axpy",
  operands: { x: "in", y: "inout" },
  params: ["n", "alpha"],
  reference({ x, y }, { n, alpha }) {
    for (let i = 0; i < n; i++) y[i] = y[i]! + alpha * x[i]!;
  },
});

export const scaleKernel: Kernel = defineKernel({
  name: "scale",
  operands: { y: "inout" },
  params: ["n", "alpha"],
  reference({ y }, { n, alpha }) {
    for (let i = 0; i < n; i++) y[i] = y[i]! * alpha;
  },
});

export const copyKernel: Kernel = defineKernel({
  name: "copy",
  operands: { x: "in", y: "out" },
  params: ["n"],
  reference({ x, y }, { n }) {
    for (let i = 0; i < n; i++) y[i] = x[i]!;
  },
});

export const copyRowKernel: Kernel = defineKernel({
  name: "copyRow",
  operands: { x: "in", table: "inout" },
  params: ["n", "row"],
  reference({ x, table }, { n, row }) {
    for (let i = 0; i < n; i++) table[row * n + i] = x[i]!;
  },
  bytes: (_, { x }) => 2 * x,
});

export const addCountsKernel: Kernel = defineKernel({
  name: "addCounts",
  operands: { x: "in i32", y: "inout i32" },
  params: ["n"],
  reference({ x, y }, { n }) {
    for (let i = 0; i < n; i++) y[i] = y[i]! + x[i]!;
  },
});

/** Sets every element of `y`. */
export function fill(y: Tensor, value: Param): void {
  y.device.run(fillKernel, { y }, { n: y.size, value });
}

/** The same numbers in another dtype, rounded to nearest even. Gradients are converted back. */
export function cast(x: Tensor, dtype: Dtype): Tensor {
  if (x.dtype === dtype) return x;
  const y = x.device.empty(x.shape, dtype);
  x.device.run(castKernel, { x, y }, { n: x.size });
  x.device.tape?.record({
    op: "cast",
    inputs: [x],
    outputs: [y],
    saved: [],
    inputGrad: (dy) => [dy === null ? null : cast(dy, x.dtype)],
  });
  return y;
}

/** a + b, in the wider of the two dtypes. */
export function add(a: Tensor, b: Tensor): Tensor {
  requireShape(b, a.shape, "add: b");
  const y = a.device.empty(a.shape, a.dtype === "bf16" ? b.dtype : a.dtype);
  a.device.run(addKernel, { a, b, y }, { n: a.size });
  a.device.tape?.record({ op: "add", inputs: [a, b], outputs: [y], saved: [], inputGrad: (dy) => [dy, dy] });
  return y;
}

/** y += alpha * x, in place; not for tensors on a tape. */
export function axpy(x: Tensor, y: Tensor, alpha: number): void {
  requireShape(x, y.shape, "axpy: x");
  y.device.run(axpyKernel, { x, y }, { n: x.size, alpha });
}

/** y *= alpha, in place; not for tensors on a tape. */
export function scale(y: Tensor, alpha: number): void {
  y.device.run(scaleKernel, { y }, { n: y.size, alpha });
}

/** Copies x into y, which must have the same shape and dtype. */
export function copyInto(x: Tensor, y: Tensor): void {
  requireShape(x, y.shape, "copy: x");
  requireDtype(x, [y.dtype], "copy: x");
  y.device.run(copyKernel, { x, y }, { n: x.size });
}

/**
 * Copies x into one row of a table, which has the same dtype.
 *
 * @param row  may change from replay to replay, unlike a view's
 */
export function copyIntoRow(x: Tensor, table: Tensor, row: Param): void {
  requireShape(table, [table.dim(0), x.size], "copyRow: table");
  requireDtype(x, [table.dtype], "copyRow: x");
  const at = paramValue(row);
  invariant(Number.isInteger(at) && at >= 0 && at < table.dim(0), `a table has a row ${at}`);
  table.device.run(copyRowKernel, { x, table }, { n: x.size, row });
}

/** y += x in whole numbers, i32, in place. */
export function addCounts(x: Tensor, y: Tensor): void {
  requireShape(x, y.shape, "addCounts: x");
  requireDtype(x, ["i32"], "addCounts: x");
  requireDtype(y, ["i32"], "addCounts: y");
  y.device.run(addCountsKernel, { x, y }, { n: x.size });
}

export const elementwiseKernels: readonly Kernel[] = [
  fillKernel,
  copyKernel,
  castKernel,
  addKernel,
  axpyKernel,
  scaleKernel,
  copyRowKernel,
  addCountsKernel,
];
