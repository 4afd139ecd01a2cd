/**
 * y = x @ w^T: every projection of the model.
 *
 * Arithmetic is that of the weight's packed copy: with bf16 panels the operands are rounded to bf16
 * and summed in f32. Each output is one chain of fused multiply-adds over K in ascending order, so a
 * row's result does not depend on which other rows are computed with it, nor on the thread count.
 */
import { invariant, ShapeError } from "../../base/index.ts";
import { bf16FromNumber, bf16ToNumber, type Dtype } from "../dtype.ts";
import { defineKernel, type Floats, type Kernel } from "../kernel.ts";
import { panelIndex } from "../panels.ts";
import type { Parameter } from "../parameter.ts";
import type { Tensor } from "../tensor.ts";

export const matmulKernel: Kernel = defineKernel({
  name: "matmul",
  operands: { x: "in", panels: "in", addend: "in?", y: "out" },
  params: ["M", "N", "K"],
  reference({ x, panels, addend, y }, { M, N, K }, dtypes) {
    const round = rounding(dtypes.panels);
    const row = new Float64Array(K);
    for (let m = 0; m < M; m++) {
      for (let k = 0; k < K; k++) row[k] = round(x[m * K + k]!);
      for (let n = 0; n < N; n++) {
        let sum = 0;
        for (let k = 0; k < K; k++) sum += row[k]! * panels[panelIndex(n, k, K, dtypes.panels)]!;
        y[m * N + n] = addend === null ? sum : sum + addend[m * N + n]!;
      }
    }
  },
  flops: ({ M, N, K }) => 2 * M * N * K,
});

export const matmulGradWeightKernel: Kernel = defineKernel({
  name: "matmulGradWeight",
  operands: { dy: "in", x: "in", dw: "inout" },
  params: ["T", "N", "K", "compute"],
  reference({ dy, x, dw }, { T, N, K, compute }) {
    const row = (t: number): number => t;
    gradWeightReference(dy, x, { from: 0, to: T, dyRow: row, xRow: row }, dw, N, K, compute);
  },
  flops: ({ T, N, K }) => 2 * T * N * K,
});

/** Rows `from` to `to` (exclusive), and where each lies in dy and in x. */
interface SummedRows {
  readonly from: number;
  readonly to: number;
  dyRow(r: number): number;
  xRow(r: number): number;
}

/** dw += dy^T x over some rows. */
export function gradWeightReference(
  dy: Floats,
  x: Floats,
  rows: SummedRows,
  dw: Floats,
  N: number,
  K: number,
  compute: number,
): void {
  const round = rounding(compute === 1 ? "bf16" : "f32");
  const sums = new Float64Array(N * K);
  for (let r = rows.from; r < rows.to; r++) {
    const [target, source] = [rows.dyRow(r) * N, rows.xRow(r) * K];
    for (let n = 0; n < N; n++) {
      const g = round(dy[target + n]!);
      for (let k = 0; k < K; k++) sums[n * K + k] = sums[n * K + k]! + g * round(x[source + k]!);
    }
  }
  for (let i = 0; i < N * K; i++) dw[i] = dw[i]! + sums[i]!;
}

/** What a GEMM does to its operands: nothing, or rounds them to bf16. */
export function rounding(dtype: Dtype | null): (value: number) => number {
  return dtype === "bf16" ? (value) => bf16ToNumber(bf16FromNumber(value)) : (value) => value;
}

/** The wire form of a compute dtype: 1 rounds operands to bf16. */
export function computeCode(weight: Parameter): number {
  return weight.panels?.dtype === "bf16" ? 1 : 0;
}

/** y[T, N] = x[T, K] @ panels^T (+ addend), enqueued as it stands: no tape. */
export function matmul(
  x: Tensor,
  panels: Tensor,
  N: number,
  y: Tensor,
  addend: Tensor | null = null,
  label: string = "",
): void {
  const K = x.dim(-1);
  x.device.run(matmulKernel, { x, panels, addend, y }, { M: x.size / K, N, K }, label);
}

/**
 * y = x @ w^T.
 *
 * @param x      [T, K]
 * @param w      [N, K]
 * @param dtype  of y; also of the gradient that flows back to x, which takes x's dtype
 * @returns      [T, N]
 * @throws       {ShapeError} if K differs
 */
export function linear(x: Tensor, w: Parameter, dtype: Dtype): Tensor {
  const [N, K] = [w.shape[0]!, w.shape[1]!];
  if (x.dim(-1) !== K) {
    throw new ShapeError(`${w.path}: x is [${x.shape.join(", ")}], the weight is [${N}, ${K}]`, {
      why: "y = x @ w^T needs x's last dimension to equal the weight's",
      fix: "check which hidden size feeds this projection",
      fields: { path: w.path, x: x.shape, w: w.shape },
    });
  }
  invariant(w.panels !== null, `${w.path} has no packed copy`);
  const T = x.size / K;
  const y = x.device.empty([T, N], dtype);
  const { panels } = w;
  const make = (): void => matmul(x, panels, N, y, null, w.path);
  make();
  x.device.tape?.record({
    op: "linear",
    inputs: [x],
    outputs: [y],
    saved: [x],
    remakes: [{ outputs: [y], reads: [x], run: make }],
    inputGrad(dy) {
      if (dy === null || w.panelsT === null) return [null];
      const dx = x.device.empty(x.shape, x.dtype);
      matmul(dy, w.panelsT, K, dx, null, w.path);
      return [dx];
    },
    weightGrad(dy) {
      if (dy === null || w.grad === null) return;
      const params = { T, N, K, compute: computeCode(w) };
      x.device.run(matmulGradWeightKernel, { dy, x, dw: w.grad }, params, w.path);
    },
  });
  return y;
}

export const linearKernels: readonly Kernel[] = [matmulKernel, matmulGradWeightKernel];
