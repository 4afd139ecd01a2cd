/**
 * Products in FP8, with sums in f32.
 *
 *   y  = x W^T    x in 1x128 tiles along the inputs,   W in 128x128 blocks
 *   dx = dy W     dy in 1x128 tiles along the outputs, the same W, transposed
 *   dW += dy^T x  both in 128x1 tiles along the tokens: what was cached in 1x128 tiles is rounded once more
 *
 * Source: DeepSeek-V3 report, sections 3.3.1 and 3.3.2, figures 6 and 7.
 */
import { invariant } from "../../../base/index.ts";
import { tilesOf } from "../../fp8.ts";
import type { Fp8Format, TileFormat } from "../../fp8Format.ts";
import type { Parameter } from "../../parameter.ts";
import type { Tensor } from "../../tensor.ts";
import { absMax } from "../fp8/absMax.ts";
import { fp8GradWeightKernel, fp8GroupedGradWeightKernel } from "../fp8/fp8GradWeight.ts";
import { fp8GroupedMatmulKernel, fp8MatmulKernel } from "../fp8/fp8Matmul.ts";
import { quantizeColumns } from "../fp8/quantizeColumns.ts";
import type { Quantized } from "../fp8/quantizeTiles.ts";
import { sharedTiles, Tiles, tilesFrom } from "../fp8/tiles.ts";
import type { Activation, Projection, RowGroups } from "./projection.ts";

export function fp8Projection(w: Parameter, format: Fp8Format): Projection {
  const { device } = w.master;
  const [E, N, K] = w.dims;
  const { panels, panelsT, scales: wScales, grad, path } = w;
  const { promotion, accumulatorBits } = format;

  /** y = x W^T, or with the transposed panels dx = dy W, and an addend where rows are not grouped. */
  const multiply = (
    x: Tiles,
    rows: Tensor | null,
    groups: RowGroups | null,
    back: boolean,
    y: Tensor,
    addend: Tensor | null = null,
  ): void => {
    const sizes = back ? { N: K, K: N, transposed: 1 } : { N, K, transposed: 0 };
    const common = { x: x.codes, xScales: x.scales, panels: back ? panelsT : panels, wScales, y };
    const params = { ...sizes, promotion, accumulatorBits };
    if (groups === null) {
      device.run(fp8MatmulKernel, { ...common, addend }, { M: x.codes.dim(0), ...params }, path);
    } else {
      invariant(addend === null, "rows of groups are summed by tokens first");
      const { offsets, count: R } = groups;
      device.run(fp8GroupedMatmulKernel, { ...common, rows, offsets }, { R, E, ...params }, path);
    }
  };

  return {
    input: (x) => (x instanceof Tiles || format.saves === "input" ? x : sharedTiles(x, format.input)),

    forward(x, groups, y) {
      using _scope = device.scope();
      multiply(inTiles(x, format.input, groups, "xRows"), groups?.xRows ?? null, groups, false, y);
    },

    backInput(dy, groups, dx, before = null) {
      using _scope = device.scope();
      const tiles = inTiles(dy, format.gradient, groups, "dyRows");
      multiply(tiles, groups?.dyRows ?? null, groups, true, dx, before);
    },

    backWeight(dy, x, groups) {
      using _scope = device.scope();
      const { codes: xCodes, scales: xScales } = columns(x, groups, groups?.xRows ?? null, format.input);
      // Rows that are gathered have crossed to the experts in tiles.
      const dyRows = groups?.dyRows ?? null;
      const sent = dyRows === null ? dy : inTiles(dy, format.gradient, groups, "dyRows");
      const { codes: dyCodes, scales: dyScales } = columns(sent, groups, dyRows, format.gradient);
      const operands = { dy: dyCodes, dyScales, x: xCodes, xScales, dw: grad };
      const params = { N, K, promotion, accumulatorBits };
      if (groups === null) device.run(fp8GradWeightKernel, operands, { T: xCodes.dim(0), ...params }, path);
      else {
        const { offsets, count: R } = groups;
        device.run(fp8GroupedGradWeightKernel, { ...operands, offsets }, { R, E, ...params }, path);
      }
    },
  };
}

function inTiles(
  x: Activation,
  format: TileFormat,
  groups: RowGroups | null,
  gathered: "xRows" | "dyRows",
): Tiles {
  if (x instanceof Tiles) return x;
  // What is gathered is whole; what has a row for each of the groups' ends where they do.
  const count = groups === null || groups[gathered] !== null ? null : groups.filled;
  return tilesFrom(x, format, count);
}

/** x in 128x1 tiles, its rows gathered and cut at the groups. */
function columns(
  x: Activation,
  groups: RowGroups | null,
  rows: Tensor | null,
  { powerOfTwo, floor, width, scaling }: TileFormat,
): Quantized {
  const amax = scaling === "tile" ? null : x instanceof Tiles ? x.amax : absMax(x);
  const offsets = groups?.offsets ?? null;
  const options = { powerOfTwo, floor, amax, rows, offsets, columnsPerTile: width };
  const { codes, scales } = quantizeColumns(x, options);
  // One group has no gap behind its last tile.
  return { codes, scales: groups === null ? scales.rows(0, tilesOf(codes.dim(0))) : scales };
}
