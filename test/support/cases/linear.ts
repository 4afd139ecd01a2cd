import type { Dtype } from "../../../src/tensor/index.ts";
import { matmulGradWeightKernel, matmulKernel } from "../../../src/tensor/ops/matmul.ts";
import { packWeightKernel } from "../../../src/tensor/ops/packWeight.ts";
import { panelElements, panelIndex } from "../../../src/tensor/panels.ts";
import type { OpCase } from "../opCase.ts";
import { normals } from "../random.ts";

/** Panels of a random [N, K] matrix, padding left at zero. */
export function randomPanels(N: number, K: number, dtype: Dtype, seed: number): Float64Array {
  const weights = normals(N * K, seed);
  const panels = new Float64Array(panelElements(N, K));
  for (let n = 0; n < N; n++) {
    for (let k = 0; k < K; k++) panels[panelIndex(n, k, K, dtype)] = weights[n * K + k]!;
  }
  return panels;
}

function matmulCase(
  name: string,
  M: number,
  N: number,
  K: number,
  x: Dtype,
  w: Dtype,
  y: Dtype,
  addend: Dtype | null,
): OpCase {
  return {
    name: `${name}: [${M}, ${K}] @ [${N}, ${K}]^T, ${x} x ${w} -> ${y}${addend === null ? "" : ` + ${addend}`}`,
    kernel: matmulKernel,
    operands: {
      x: { shape: [M, K], dtype: x, values: normals(M * K, 1) },
      panels: { shape: [panelElements(N, K)], dtype: w, values: randomPanels(N, K, w, 2) },
      addend: addend === null ? null : { shape: [M, N], dtype: addend, values: normals(M * N, 3) },
      y: { shape: [M, N], dtype: y },
    },
    params: { M, N, K },
    tolerance: y === "bf16" ? "bf16" : "f32Long",
  };
}

const matmulCases: readonly OpCase[] = [
  matmulCase("one row", 1, 64, 96, "f32", "f32", "f32", null),
  matmulCase("one row in bf16", 1, 4096, 256, "bf16", "bf16", "f32", null),
  matmulCase("odd everything", 13, 37, 51, "f32", "f32", "f32", null),
  matmulCase("odd everything in bf16", 13, 37, 51, "bf16", "bf16", "bf16", null),
  matmulCase("whole tiles", 24, 64, 64, "bf16", "bf16", "f32", "f32"),
  matmulCase("rounded on the way in", 30, 48, 40, "f32", "bf16", "f32", null),
  matmulCase("widened on the way in", 30, 16, 40, "bf16", "f32", "f32", null),
  matmulCase("with an addend", 7, 33, 20, "f32", "f32", "f32", "f32"),
  matmulCase("with an addend, ragged, in bf16", 39, 83, 70, "bf16", "bf16", "bf16", "bf16"),
  matmulCase("with an addend, many rows", 300, 200, 128, "bf16", "bf16", "bf16", "bf16"),
  matmulCase("with an addend, a router's few inputs", 70, 256, 16, "f32", "f32", "bf16", "bf16"),
  matmulCase("one output", 5, 1, 8, "f32", "f32", "f32", null),
  matmulCase("one input", 5, 40, 1, "bf16", "bf16", "f32", null),
  matmulCase("longer than a K block", 14, 40, 2600, "bf16", "bf16", "f32", null),
  matmulCase("longer than a K block", 14, 40, 2600, "f32", "f32", "f32", null),
  matmulCase("several tiles of several K blocks", 100, 600, 1100, "bf16", "bf16", "f32", null),
  matmulCase("a step's size", 300, 200, 128, "bf16", "bf16", "bf16", null),
];

function gradWeightCase(T: number, N: number, K: number, dy: Dtype, x: Dtype, compute: number): OpCase {
  return {
    name: `${T} tokens, [${N}, ${K}], ${dy} and ${x}, ${compute === 1 ? "bf16" : "f32"} products`,
    kernel: matmulGradWeightKernel,
    operands: {
      dy: { shape: [T, N], dtype: dy, values: normals(T * N, 4) },
      x: { shape: [T, K], dtype: x, values: normals(T * K, 5) },
      dw: { shape: [N, K], dtype: "f32", values: normals(N * K, 6) },
    },
    params: { T, N, K, compute },
    tolerance: "f32Long",
  };
}

function packCase(B: number, N: number, K: number, dtype: Dtype, isTransposedToo: boolean): OpCase {
  return {
    name: `${B} x [${N}, ${K}] to ${dtype}${isTransposedToo ? ", both ways" : ""}`,
    kernel: packWeightKernel,
    operands: {
      master: { shape: [B, N, K], dtype: "f32", values: normals(B * N * K, 7) },
      panels: { shape: [B, panelElements(N, K)], dtype },
      panelsT: isTransposedToo ? { shape: [B, panelElements(K, N)], dtype } : null,
    },
    params: { B, N, K },
    tolerance: "exact",
  };
}

export const linearCases: readonly OpCase[] = [
  ...matmulCases,
  gradWeightCase(16, 12, 10, "f32", "f32", 0),
  gradWeightCase(17, 33, 37, "bf16", "bf16", 1),
  gradWeightCase(1, 5, 7, "f32", "f32", 0),
  gradWeightCase(300, 64, 96, "bf16", "bf16", 1),
  gradWeightCase(1500, 20, 40, "f32", "bf16", 1),
  gradWeightCase(1500, 20, 40, "f32", "f32", 0),
  gradWeightCase(1100, 100, 150, "bf16", "bf16", 1),
  packCase(1, 32, 32, "bf16", true),
  packCase(1, 33, 51, "bf16", true),
  packCase(3, 7, 5, "bf16", true),
  packCase(2, 40, 64, "f32", true),
  packCase(1, 1, 1, "f32", false),
  packCase(1, 65, 2, "bf16", false),
];
