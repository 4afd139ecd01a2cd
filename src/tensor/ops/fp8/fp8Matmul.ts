/**
 * y = x @ w^T (+ addend) in FP8: both operands are E4M3 codes, x with a scale per row and 128 columns (1x128 tiles), w with one per
 * block of 128x128.
 *
 * The forward pass reads a weight's panels; the input gradient reads the same codes turned (`panelsT`), whose scales are
 * the same blocks seen from the other side (`transposed`). What is summed, and when scales come in, is ./scaledSum.ts.
 *
 * Source: DeepSeek-V3 report, section 3.3, Figures 6 and 7.
 */
import { TILE, tilesOf } from "../../fp8.ts";
import { defineKernel, type Floats, type Kernel } from "../../kernel.ts";
import { panelElements, panelIndex } from "../../panels.ts";
import { type Accumulation, scaledSum } from "./scaledSum.ts";

export const fp8MatmulKernel: Kernel = defineKernel({
  name: "fp8Matmul",
  operands: { x: "in", xScales: "in", panels: "in", wScales: "in", addend: "in?", y: "out" },
  params: ["M", "N", "K", "transposed", "promotion", "accumulatorBits"],
  reference({ x, xScales, panels, wScales, addend, y }, { M, N, K, transposed, ...accumulation }) {
    const weight = { panels, scales: wScales, N, K, transposed };
    // Sums are whole before the addend comes and anything is rounded to y's dtype.
    const sums = new Float64Array(N);
    for (let m = 0; m < M; m++) {
      multiplyRow(x, xScales, m, weight, accumulation, sums);
      for (let n = 0; n < N; n++) {
        y[m * N + n] = addend === null ? sums[n]! : sums[n]! + addend[m * N + n]!;
      }
    }
  },
  flops: ({ M, N, K }) => 2 * M * N * K,
});

export const fp8GroupedMatmulKernel: Kernel = defineKernel({
  name: "fp8GroupedMatmul",
  operands: {
    x: "in",
    xScales: "in",
    rows: "in? i32",
    offsets: "in i32",
    panels: "in",
    wScales: "in",
    y: "out",
  },
  params: ["R", "N", "K", "E", "transposed", "promotion", "accumulatorBits"],
  reference(
    { x, xScales, rows, offsets, panels, wScales, y },
    { N, K, E, transposed, promotion, accumulatorBits },
  ) {
    const [codes, blocks] = [panelElements(N, K), tilesOf(N) * tilesOf(K)];
    for (let e = 0; e < E; e++) {
      const weight = {
        panels: panels.subarray(e * codes, (e + 1) * codes),
        scales: wScales.subarray(e * blocks, (e + 1) * blocks),
        N,
        K,
        transposed,
      };
      for (let r = offsets[e]!; r < offsets[e + 1]!; r++) {
        const out = y.subarray(r * N, (r + 1) * N);
        multiplyRow(x, xScales, rows?.[r] ?? r, weight, { promotion, accumulatorBits }, out);
      }
    }
  },
  flops: ({ R, N, K }) => 2 * R * N * K,
});

interface Fp8Weight {
  readonly panels: Floats;
  readonly scales: Floats;
  readonly N: number;
  readonly K: number;
  /** 1: the panels are those of the transpose, the scales [ceil(K/128), ceil(N/128)]. */
  readonly transposed: number;
}

/** One row of y. */
function multiplyRow(
  x: Floats,
  xScales: Floats,
  row: number,
  { panels, scales, N, K, transposed }: Fp8Weight,
  accumulation: Accumulation,
  y: Floats,
): void {
  const products = new Float64Array(K);
  for (let n = 0; n < N; n++) {
    for (let k = 0; k < K; k++) {
      products[k] = x[row * K + k]! * panels[panelIndex(n, k, K, "f8e4m3")]!;
    }
    const block = Math.floor(n / TILE);
    const scaleOf = (tile: number): number => {
      const at = transposed === 1 ? tile * tilesOf(N) + block : block * tilesOf(K) + tile;
      return Math.fround(xScales[row * tilesOf(K) + tile]! * scales[at]!);
    };
    y[n] = scaledSum(products, scaleOf, accumulation);
  }
}

export const fp8MatmulKernels: readonly Kernel[] = [fp8MatmulKernel, fp8GroupedMatmulKernel];
