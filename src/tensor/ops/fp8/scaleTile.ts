/** What all quantisers do to one tile: find its greatest magnitude, then divide its numbers by the scale. */
import { type CodeDtype, type ScaleRule, tileScale } from "../../fp8.ts";
import type { Floats } from "../../kernel.ts";

/** Rows and columns of a tile; the ends are exclusive and lie inside the matrix: padding is never read. */
export interface TileRange {
  readonly rows: readonly [number, number];
  readonly columns: readonly [number, number];
}

/**
 * Calls `put` with each number of the tile divided by the tile's scale, and returns that scale.
 *
 * @param given  a greatest magnitude to be used instead of the tile's own, [1]
 */
export function scaleTile(
  { rows, columns }: TileRange,
  value: (row: number, column: number) => number,
  given: Floats | null,
  dtype: CodeDtype,
  rule: ScaleRule,
  put: (row: number, column: number, quotient: number) => void,
): number {
  let amax = 0;
  for (let r = rows[0]; r < rows[1]; r++) {
    for (let k = columns[0]; k < columns[1]; k++) amax = Math.max(amax, Math.abs(value(r, k)));
  }
  const scale = tileScale(given === null ? amax : given[0]!, dtype, rule);
  for (let r = rows[0]; r < rows[1]; r++) {
    for (let k = columns[0]; k < columns[1]; k++) put(r, k, Math.fround(value(r, k) / scale));
  }
  return scale;
}

/** [from, to) of tile `index`, cut off at `end`. */
export function tileSpan(from: number, size: number, end: number): readonly [number, number] {
  return [from, Math.min(from + size, end)];
}
