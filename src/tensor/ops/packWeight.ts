/** Packs weights into the panels that the matrix kernels read; the optimizer does the same as it updates. */

import type { Dtype } from "../dtype.ts";
import { defineKernel, type Floats, type Kernel } from "../kernel.ts";
import { panelElements, panelIndex } from "../panels.ts";
import type { Tensor } from "../tensor.ts";

export const packWeightKernel: Kernel = defineKernel({
  name: "packWeight",
  operands: { master: "in", panels: "out", panelsT: "out?" },
  params: ["B", "N", "K"],
  reference({ master, panels, panelsT }, { B, N, K }, dtypes) {
    packReference(master, panels, dtypes.panels, B, N, K);
    if (panelsT !== null) packTransposedReference(master, panelsT, dtypes.panelsT, B, N, K);
  },
});

export function packReference(
  w: Floats,
  panels: Floats,
  dtype: Dtype | null,
  B: number,
  N: number,
  K: number,
): void {
  panels.fill(0);
  for (let b = 0; b < B; b++) {
    const block = b * panelElements(N, K);
    for (let n = 0; n < N; n++) {
      for (let k = 0; k < K; k++) panels[block + panelIndex(n, k, K, dtype)] = w[(b * N + n) * K + k]!;
    }
  }
}

export function packTransposedReference(
  w: Floats,
  panelsT: Floats,
  dtype: Dtype | null,
  B: number,
  N: number,
  K: number,
): void {
  panelsT.fill(0);
  for (let b = 0; b < B; b++) {
    const block = b * panelElements(K, N);
    for (let n = 0; n < N; n++) {
      for (let k = 0; k < K; k++) panelsT[block + panelIndex(k, n, N, dtype)] = w[(b * N + n) * K + k]!;
    }
  }
}

export function packWeight(
  master: Tensor,
  panels: Tensor,
  panelsT: Tensor | null,
  B: number,
  N: number,
  K: number,
): void {
  master.device.run(packWeightKernel, { master, panels, panelsT }, { B, N, K });
}
