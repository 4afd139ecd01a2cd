/**
 * One matrix multiplication per expert, over the rows that were sent to it.
 *
 * Rows are sorted by expert; `offsets` bounds each expert's part and lives on the queue, so no shape depends on what
 * the router chose. Gathering a token's row is part of the multiplication.
 */
import { defineKernel, type Kernel } from "../../kernel.ts";
import { panelElements, panelIndex } from "../../panels.ts";
import { gradWeightReference, rounding } from "../matmul.ts";

export const groupedMatmulKernel: Kernel = defineKernel({
  name: "groupedMatmul",
  operands: { x: "in", rows: "in? i32", offsets: "in i32", panels: "in", y: "out" },
  params: ["R", "N", "K", "E"],
  reference({ x, rows, offsets, panels, y }, { N, K, E }, dtypes) {
    const round = rounding(dtypes.panels);
    const block = panelElements(N, K);
    for (let e = 0; e < E; e++) {
      for (let r = offsets[e]!; r < offsets[e + 1]!; r++) {
        const source = (rows === null ? r : rows[r]!) * K;
        for (let n = 0; n < N; n++) {
          let sum = 0;
          for (let k = 0; k < K; k++) {
            sum += round(x[source + k]!) * panels[e * block + panelIndex(n, k, K, dtypes.panels)]!;
          }
          y[r * N + n] = sum;
        }
      }
    }
  },
  flops: ({ R, N, K }) => 2 * R * N * K,
});

export const groupedMatmulGradWeightKernel: Kernel = defineKernel({
  name: "groupedMatmulGradWeight",
  operands: { dy: "in", dyRows: "in? i32", x: "in", xRows: "in? i32", offsets: "in i32", dw: "inout" },
  params: ["R", "N", "K", "E", "compute"],
  reference({ dy, dyRows, x, xRows, offsets, dw }, { N, K, E, compute }) {
    const from =
      (rows: Int32Array | null) =>
      (r: number): number =>
        rows?.[r] ?? r;
    for (let e = 0; e < E; e++) {
      const tokens = { from: offsets[e]!, to: offsets[e + 1]!, dyRow: from(dyRows), xRow: from(xRows) };
      gradWeightReference(dy, x, tokens, dw.subarray(e * N * K, (e + 1) * N * K), N, K, compute);
    }
  },
  flops: ({ R, N, K }) => 2 * R * N * K,
});

export const groupedMatmulKernels: readonly Kernel[] = [groupedMatmulKernel, groupedMatmulGradWeightKernel];
