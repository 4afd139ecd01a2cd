/**
 * Numbers along a row to FP8 and back: what a product sums over its second dimension.
 *
 * One scale for each 1x128 tile, one token and 128 channels, from the numbers as they are now: an outlier spoils
 * its own tile only. Two coarser choices exist for ablations: one scale per 128x128 block, one for the whole tensor.
 */
import { invariant } from "../../../base/index.ts";
import type { Dtype } from "../../dtype.ts";
import { type CodeDtype, type ScaleRule, TILE, tilesOf } from "../../fp8.ts";
import { defineKernel, type Kernel } from "../../kernel.ts";
import { requireDtype, requireShape } from "../../shape.ts";
import type { Tensor } from "../../tensor.ts";
import { scaleTile, tileSpan } from "./scaleTile.ts";

export const quantizeTilesKernel: Kernel = defineKernel({
  name: "quantizeTiles",
  operands: { x: "in", amax: "in?", codes: "out", scales: "out", count: "in? i32" },
  params: ["R", "K", "powerOfTwo", "floor", "rowsPerTile"],
  reference({ x, amax, codes, scales, count }, { R: room, K, powerOfTwo, floor, rowsPerTile }, dtypes) {
    const R = count?.[0] ?? room;
    const dtype = dtypes.codes as CodeDtype;
    const rule = { powerOfTwo: powerOfTwo === 1, floor };
    for (let row = 0; row < R; row += rowsPerTile) {
      for (let t = 0; t < tilesOf(K); t++) {
        const tile = { rows: tileSpan(row, rowsPerTile, R), columns: tileSpan(t * TILE, TILE, K) };
        const value = (r: number, k: number): number => x[r * K + k]!;
        const scale = scaleTile(tile, value, amax, dtype, rule, (r, k, quotient) => {
          codes[r * K + k] = quotient;
        });
        for (let r = tile.rows[0]; r < tile.rows[1]; r++) scales[r * tilesOf(K) + t] = scale;
      }
    }
  },
});

export const dequantizeTilesKernel: Kernel = defineKernel({
  name: "dequantizeTiles",
  operands: { codes: "in", scales: "in", y: "out", count: "in? i32" },
  params: ["R", "K"],
  reference({ codes, scales, y, count }, { R, K }) {
    for (let r = 0; r < (count?.[0] ?? R); r++) {
      for (let k = 0; k < K; k++) {
        const scale = scales[r * tilesOf(K) + Math.floor(k / TILE)]!;
        y[r * K + k] = Math.fround(codes[r * K + k]! * scale);
      }
    }
  },
});

/** Codes and the f32 scales that turn them into numbers again. */
export interface Quantized {
  readonly codes: Tensor;
  readonly scales: Tensor;
}

export interface QuantizeOptions extends ScaleRule {
  /** [1] f32: one greatest magnitude for every tile, as absMax gives it. */
  readonly amax?: Tensor | null;
}

/**
 * x in codes, with one scale for every 128 numbers of a row.
 *
 * @param x            [R, K], f32 or bf16
 * @param dtype        of the codes; e5m6 needs an even K
 * @param rowsPerTile  1, or 128: one scale for a block of 128x128, written to each of its rows
 * @returns            codes [R, K], scales [R, ceil(K / 128)]
 */
export function quantizeTiles(
  x: Tensor,
  options: QuantizeOptions,
  dtype: CodeDtype = "f8e4m3",
  rowsPerTile: 1 | 128 = 1,
): Quantized {
  requireDtype(x, ["f32", "bf16"], "quantizeTiles: x");
  const K = x.dim(-1);
  const R = K === 0 ? 0 : x.size / K;
  invariant(dtype !== "e5m6" || K % 2 === 0, `rows of ${K} numbers do not end at a byte in e5m6`);
  const { amax = null, powerOfTwo, floor } = options;
  const codes = x.device.empty([R, K], dtype);
  const scales = x.device.empty([R, tilesOf(K)], "f32");
  const params = { R, K, powerOfTwo: powerOfTwo ? 1 : 0, floor, rowsPerTile };
  x.device.run(quantizeTilesKernel, { x, amax, codes, scales, count: null }, params);
  return { codes, scales };
}

/** The numbers that codes with 1x128 tiles stand for: [R, K] in `dtype`. */
export function dequantizeTiles({ codes, scales }: Quantized, dtype: Dtype): Tensor {
  const [R, K] = [codes.dim(0), codes.dim(1)];
  requireShape(scales, [R, tilesOf(K)], "dequantizeTiles: scales");
  const y = codes.device.empty([R, K], dtype);
  codes.device.run(dequantizeTilesKernel, { codes, scales, y, count: null }, { R, K });
  return y;
}
