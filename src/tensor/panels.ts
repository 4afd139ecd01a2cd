/**
 * How a weight lies in memory for the matrix kernels: in panels of 32 outputs, read as one stream.
 *
 *   f32:  [ceil(N/32)][Kp][32]          bf16: [ceil(N/32)][Kp/2][32][2]       Kp = K rounded up to even
 *
 * The bf16 form keeps two neighbours along K together, as the dot-product instructions want them; f8e4m3 lies alike.
 * Padding is zero. A batch of matrices (one per expert) is one such block after another.
 */
import type { Dtype } from "./dtype.ts";

/** Outputs side by side in one panel. */
export const PANEL_WIDTH = 32;

/** Elements of the panels of one [N, K] matrix. */
export function panelElements(N: number, K: number): number {
  return Math.ceil(N / PANEL_WIDTH) * PANEL_WIDTH * evenUp(K);
}

/** Where element (n, k) of an [N, K] matrix lies. */
export function panelIndex(n: number, k: number, K: number, dtype: Dtype | null): number {
  const panel = Math.floor(n / PANEL_WIDTH);
  const column = n % PANEL_WIDTH;
  const start = panel * evenUp(K) * PANEL_WIDTH;
  if (dtype === "bf16" || dtype === "f8e4m3")
    return start + (k >> 1) * 2 * PANEL_WIDTH + column * 2 + (k & 1);
  return start + k * PANEL_WIDTH + column;
}

function evenUp(K: number): number {
  return K + (K & 1);
}
