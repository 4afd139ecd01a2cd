/** Activations that a tape holds in fewer bits than the forward pass used. */
import type { TileFormat } from "../../fp8Format.ts";
import type { Tensor } from "../../tensor.ts";
import { dequantizeTilesKernel } from "./quantizeTiles.ts";
import { tilesFrom } from "./tiles.ts";

/**
 * Lets a tape hold `tensor` in tiles: on the way back it is read from them, rounded. Returns it as it is.
 *
 * @param format  null holds the tensor itself
 * @param count   [1] i32: how many of its rows there are; null for all
 */
export function keptAs(tensor: Tensor, format: TileFormat | null, count: Tensor | null = null): Tensor {
  const { device } = tensor;
  if (format === null || device.tape === null) return tensor;
  using _scope = device.scope();
  const { codes, scales } = tilesFrom(tensor, format, count);
  const [R, K] = [codes.dim(0), codes.dim(1)];
  device.tape.keepAs(tensor, {
    outputs: [tensor],
    reads: [codes, scales, count],
    run: () => device.run(dequantizeTilesKernel, { codes, scales, y: tensor, count }, { R, K }),
  });
  return tensor;
}
