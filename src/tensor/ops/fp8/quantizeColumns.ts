/**
 * Numbers down a column to FP8: what a weight's gradient sums over tokens.
 *
 * One scale for each 128x1 tile: 128 tokens of one channel. Tokens of different experts share no tile. What was
 * cached for the forward pass in 1x128 tiles is read as numbers first and rounded once more.
 */
import { invariant } from "../../../base/index.ts";
import { TILE } from "../../fp8.ts";
import { defineKernel, type Kernel } from "../../kernel.ts";
import type { Tensor } from "../../tensor.ts";
import type { Quantized, QuantizeOptions } from "./quantizeTiles.ts";
import { scaleTile, tileSpan } from "./scaleTile.ts";

export const quantizeColumnsKernel: Kernel = defineKernel({
  name: "quantizeColumns",
  operands: {
    x: "in",
    xScales: "in?",
    rows: "in? i32",
    offsets: "in? i32",
    amax: "in?",
    codes: "out",
    scales: "out",
  },
  params: ["R", "K", "G", "powerOfTwo", "floor", "columnsPerTile"],
  reference({ x, xScales, rows, offsets, amax, codes, scales }, params) {
    const { R, K, G, powerOfTwo, floor, columnsPerTile } = params;
    const rule = { powerOfTwo: powerOfTwo === 1, floor };
    const value = (r: number, k: number): number => {
      const source = rows === null ? r : rows[r]!;
      const number = x[source * K + k]!;
      if (xScales === null) return number;
      return Math.fround(number * xScales[source * Math.ceil(K / TILE) + Math.floor(k / TILE)]!);
    };
    for (const { from, to, scaleRow } of columnTiles(offsets ?? [0, R], G)) {
      for (let column = 0; column < K; column += columnsPerTile) {
        const tile = { rows: [from, to], columns: tileSpan(column, columnsPerTile, K) } as const;
        const scale = scaleTile(tile, value, amax, "f8e4m3", rule, (r, k, quotient) => {
          codes[r * K + k] = quotient;
        });
        for (let k = tile.columns[0]; k < tile.columns[1]; k++) scales[scaleRow * K + k] = scale;
      }
    }
  },
});

/** Rows `from` to `to` (exclusive) of one group, which share the scales of row `scaleRow`. */
export interface ColumnTile {
  readonly from: number;
  readonly to: number;
  readonly scaleRow: number;
}

/**
 * Where the 128x1 tiles of each group lie, in codes and in scales.
 *
 * Group g begins at scale row floor(offsets[g] / 128) + g: room for its last, short tile, without a sum over the
 * groups before it. Rows between two groups' tiles belong to none.
 */
export function columnTiles(offsets: ArrayLike<number>, groups: number): readonly ColumnTile[] {
  return Array.from({ length: groups }, (_, g) => {
    const [start, end] = [offsets[g]!, offsets[g + 1]!];
    const first = Math.floor(start / TILE) + g;
    return Array.from({ length: Math.ceil((end - start) / TILE) }, (_, i) => {
      const [from, to] = tileSpan(start + i * TILE, TILE, end);
      return { from, to, scaleRow: first + i };
    });
  }).flat();
}

/** Rows of scales that `R` rows in `groups` groups need: some may stay unused. */
export function columnScaleRows(R: number, groups: number): number {
  return Math.floor(R / TILE) + groups;
}

export interface ColumnOptions extends QuantizeOptions {
  /** [R] i32: row r of the result is x[rows[r]]. */
  readonly rows?: Tensor | null;
  /** [G + 1] i32: rows offsets[g] to offsets[g + 1] are a group; without it all rows are one. */
  readonly offsets?: Tensor | null;
  /** 128: one scale for a block of 128x128, written to each of its columns. Default 1. */
  readonly columnsPerTile?: 1 | 128;
}

/**
 * x in E4M3, with one scale for every 128 rows of a group and each column.
 *
 * @param x  [Tx, K] f32 or bf16, or such numbers quantised in 1x128 tiles
 * @returns  codes [R, K], scales [columnScaleRows(R, G), K]
 */
export function quantizeColumns(x: Tensor | Quantized, options: ColumnOptions): Quantized {
  const { codes: source, scales: xScales } = "codes" in x ? x : { codes: x, scales: null };
  const { device } = source;
  const isCoded = source.dtype === "f8e4m3" || source.dtype === "e5m6";
  invariant(
    isCoded === (xScales !== null),
    `quantizeColumns: ${source.dtype} and scales do not fit together`,
  );
  const { rows = null, offsets = null, amax = null, powerOfTwo, floor, columnsPerTile = 1 } = options;
  const K = source.dim(-1);
  const R = rows === null ? source.size / K : rows.size;
  const G = offsets === null ? 1 : offsets.size - 1;
  const codes = device.empty([R, K], "f8e4m3");
  const scales = device.empty([columnScaleRows(R, G), K], "f32");
  const operands = { x: source, xScales, rows, offsets, amax, codes, scales };
  const params = { R, K, G, powerOfTwo: powerOfTwo ? 1 : 0, floor, columnsPerTile };
  device.run(quantizeColumnsKernel, operands, params);
  return { codes, scales };
}
