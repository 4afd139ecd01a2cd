/**
 * Products with packed weights of f32 and bf16: y = x @ w^T, and a weight's gradient.
 *
 * Arithmetic is that of the packed copy: with bf16 panels the operands are rounded to bf16 and summed in f32. Each
 * output is one chain of fused multiply-adds over K in ascending order, so a row's result does not depend on which
 * other rows are computed with it, nor on the thread count.
 */
import { bf16FromNumber, bf16ToNumber, type Dtype } from "../dtype.ts";
import { defineKernel, type Floats, type Kernel } from "../kernel.ts";
import { panelIndex } from "../panels.ts";

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

export const matmulKernels: readonly Kernel[] = [matmulKernel, matmulGradWeightKernel];
