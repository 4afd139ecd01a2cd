/**
 * A weight to FP8 panels, once per optimizer step: one scale for each block of 128x128.
 *
 * The same codes serve the forward product and, transposed, the input's gradient: a square block has one scale
 * either way.
 */
import { TILE, tilesOf } from "../../fp8.ts";
import { defineKernel, type Kernel } from "../../kernel.ts";
import { panelElements, panelIndex } from "../../panels.ts";
import type { Tensor } from "../../tensor.ts";
import { scaleTile, tileSpan } from "./scaleTile.ts";

export const quantizeWeightKernel: Kernel = defineKernel({
  name: "quantizeWeight",
  operands: { master: "in", amax: "in?", panels: "out", panelsT: "out?", scales: "out" },
  params: ["B", "N", "K", "powerOfTwo"],
  reference({ master, amax, panels, panelsT, scales }, { B, N, K, powerOfTwo }) {
    const rule = { powerOfTwo: powerOfTwo === 1, floor: 0 };
    panels.fill(0);
    panelsT?.fill(0);
    for (let block = 0; block < B * tilesOf(N) * tilesOf(K); block++) {
      const b = Math.floor(block / (tilesOf(N) * tilesOf(K)));
      const row = (Math.floor(block / tilesOf(K)) % tilesOf(N)) * TILE;
      const column = (block % tilesOf(K)) * TILE;
      const tile = { rows: tileSpan(row, TILE, N), columns: tileSpan(column, TILE, K) };
      const value = (n: number, k: number): number => master[(b * N + n) * K + k]!;
      scales[block] = scaleTile(tile, value, amax, "f8e4m3", rule, (n, k, quotient) => {
        panels[b * panelElements(N, K) + panelIndex(n, k, K, "f8e4m3")] = quotient;
        if (panelsT === null) return;
        panelsT[b * panelElements(K, N) + panelIndex(k, n, N, "f8e4m3")] = quotient;
      });
    }
  },
});

/** What a weight [B, N, K] is in FP8. */
export interface WeightCodes {
  /** [B, panelElements(N, K)] f8e4m3 */
  readonly panels: Tensor;
  /** [B, panelElements(K, N)] f8e4m3 */
  readonly panelsT: Tensor | null;
  /** [B, ceil(N / 128), ceil(K / 128)] f32 */
  readonly scales: Tensor;
}

/**
 * Writes codes and scales anew from the master: after initialising, loading, or a step of the optimizer.
 *
 * @param dims  [B, N, K]: B matrices of N outputs and K inputs
 * @param amax  [1] f32: one greatest magnitude for every block, as absMax gives it
 */
export function quantizeWeight(
  master: Tensor,
  { panels, panelsT, scales }: WeightCodes,
  dims: readonly [number, number, number],
  powerOfTwo: boolean,
  amax: Tensor | null = null,
): void {
  const [B, N, K] = dims;
  const params = { B, N, K, powerOfTwo: powerOfTwo ? 1 : 0 };
  master.device.run(quantizeWeightKernel, { master, amax, panels, panelsT, scales }, params);
}
