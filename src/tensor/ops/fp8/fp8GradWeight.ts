/**
 * dw += dy^T x in FP8: what is summed are tokens, so both operands have 128x1 tiles, one scale per 128 tokens and column.
 *
 * Tokens of one expert are a group: its tiles begin with its first token, at row floor(offset / 128) + expert of the
 * scales, as quantizeColumns lays them out. Sums begin at 0 and are added once to dw, which stays f32.
 *
 * Source: DeepSeek-V3 report, sections 3.3.1 and 3.3.2.
 */
import { TILE } from "../../fp8.ts";
import { defineKernel, type Floats, type Kernel } from "../../kernel.ts";
import { type Accumulation, scaledSum } from "./scaledSum.ts";

export const fp8GradWeightKernel: Kernel = defineKernel({
  name: "fp8GradWeight",
  operands: { dy: "in", dyScales: "in", x: "in", xScales: "in", dw: "inout" },
  params: ["T", "N", "K", "promotion", "accumulatorBits"],
  reference({ dy, dyScales, x, xScales, dw }, { T, N, K, ...accumulation }) {
    addGradient({ dy, dyScales, x, xScales }, { from: 0, to: T, scaleRow: 0 }, dw, N, K, accumulation);
  },
  flops: ({ T, N, K }) => 2 * T * N * K,
});

export const fp8GroupedGradWeightKernel: Kernel = defineKernel({
  name: "fp8GroupedGradWeight",
  operands: { dy: "in", dyScales: "in", x: "in", xScales: "in", offsets: "in i32", dw: "inout" },
  params: ["R", "N", "K", "E", "promotion", "accumulatorBits"],
  reference({ offsets, dw, ...factors }, { N, K, E, promotion, accumulatorBits }) {
    for (let e = 0; e < E; e++) {
      const from = offsets[e]!;
      const tokens = { from, to: offsets[e + 1]!, scaleRow: Math.floor(from / TILE) + e };
      const expert = dw.subarray(e * N * K, (e + 1) * N * K);
      addGradient(factors, tokens, expert, N, K, { promotion, accumulatorBits });
    }
  },
  flops: ({ R, N, K }) => 2 * R * N * K,
});

interface Factors {
  readonly dy: Floats;
  readonly dyScales: Floats;
  readonly x: Floats;
  readonly xScales: Floats;
}

/** Tokens `from` to `to` (exclusive), and the row of their first tile among the scales. */
interface Tokens {
  readonly from: number;
  readonly to: number;
  readonly scaleRow: number;
}

function addGradient(
  { dy, dyScales, x, xScales }: Factors,
  { from, to, scaleRow }: Tokens,
  dw: Floats,
  N: number,
  K: number,
  accumulation: Accumulation,
): void {
  if (from === to) return;
  const products = new Float64Array(to - from);
  for (let n = 0; n < N; n++) {
    for (let k = 0; k < K; k++) {
      for (let t = from; t < to; t++) products[t - from] = dy[t * N + n]! * x[t * K + k]!;
      const scaleOf = (tile: number): number =>
        Math.fround(dyScales[(scaleRow + tile) * N + n]! * xScales[(scaleRow + tile) * K + k]!);
      dw[n * K + k] = dw[n * K + k]! + scaledSum(products, scaleOf, accumulation);
    }
  }
}

export const fp8GradWeightKernels: readonly Kernel[] = [fp8GradWeightKernel, fp8GroupedGradWeightKernel];
