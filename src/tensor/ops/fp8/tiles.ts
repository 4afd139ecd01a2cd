/**
 * An activation or a gradient in tiles: what FP8 products read, and what a tape holds for the way back.
 *
 * Rounding has no gradient of its own: the gradient of what was multiplied is taken for the source's.
 */
import { invariant } from "../../../base/index.ts";
import { tilesOf } from "../../fp8.ts";
import type { TileFormat } from "../../fp8Format.ts";
import type { Tensor } from "../../tensor.ts";
import { absMaxKernel } from "./absMax.ts";
import { type Quantized, quantizeTilesKernel } from "./quantizeTiles.ts";

export class Tiles implements Quantized {
  /** What was rounded: its shape and its gradient live on, its numbers may be gone. */
  readonly source: Tensor;
  readonly codes: Tensor;
  readonly scales: Tensor;
  /** [1], where one scale serves the whole tensor */
  readonly amax: Tensor | null;

  constructor(source: Tensor, codes: Tensor, scales: Tensor, amax: Tensor | null) {
    this.source = source;
    this.codes = codes;
    this.scales = scales;
    this.amax = amax;
  }

  get tensors(): readonly Tensor[] {
    return [this.codes, this.scales, ...(this.amax === null ? [] : [this.amax])];
  }
}

/**
 * x [R, K] in tiles, which the innermost scope owns. No tape knows of them.
 *
 * @param count  [1] i32: how many of the R rows there are; null for all
 */
export function tilesFrom(x: Tensor, format: TileFormat, count: Tensor | null = null): Tiles {
  const { device } = x;
  const K = x.dim(-1);
  const R = x.size / K;
  invariant(format.dtype !== "e5m6" || K % 2 === 0, `rows of ${K} numbers do not end at a byte in e5m6`);
  const tiles = new Tiles(
    x,
    device.empty([R, K], format.dtype),
    device.empty([R, tilesOf(K)], "f32"),
    format.scaling === "tensor" ? device.empty([1], "f32") : null,
  );
  writeTiles(tiles, format, count);
  return tiles;
}

/** x in tiles that several products share and that a tape holds: if it gives x up, it gives up the tiles too. */
export function sharedTiles(x: Tensor, format: TileFormat): Tiles {
  const tiles = tilesFrom(x, format);
  const { tape } = x.device;
  tape?.record({
    op: "quantize",
    inputs: [],
    outputs: tiles.tensors,
    saved: [],
    remakes: [{ outputs: tiles.tensors, reads: [x], run: () => writeTiles(tiles, format) }],
    inputGrad: () => [],
  });
  for (const tensor of tiles.tensors) tape?.recomputeWith(tensor, x);
  return tiles;
}

function writeTiles(
  { source: x, codes, scales, amax }: Tiles,
  format: TileFormat,
  count: Tensor | null = null,
): void {
  const { device } = x;
  const [R, K] = [codes.dim(0), codes.dim(1)];
  if (amax !== null) device.run(absMaxKernel, { x, y: amax }, { n: x.size });
  const { powerOfTwo, floor, width } = format;
  const params = { R, K, powerOfTwo: powerOfTwo ? 1 : 0, floor, rowsPerTile: width };
  device.run(quantizeTilesKernel, { x, amax, codes, scales, count }, params);
}
