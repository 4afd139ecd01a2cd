/**
 * Cases of the loss kernels: vocabularies that fill no panel, ignored targets alone, in groups and everywhere,
 * several chunks of tokens, gradients wanted or not, and each storage dtype on each operand.
 */
import { linearCrossEntropyKernel } from "../../../src/tensor/ops/linearCrossEntropy.ts";
import { packReference, packTransposedReference } from "../../../src/tensor/ops/packWeight.ts";
import { countPositiveKernel, reduceSumKernel } from "../../../src/tensor/ops/reduce.ts";
import { panelElements } from "../../../src/tensor/panels.ts";
import type { CaseOperand, OpCase } from "../opCase.ts";
import { integers, normals } from "../random.ts";

type Float = "f32" | "bf16";

interface LossShape {
  readonly T: number;
  readonly D: number;
  readonly V: number;
  readonly x?: Float;
  readonly panels?: Float;
  readonly gradients?: "both" | "input" | "weight" | "none";
  readonly isIgnored?: (t: number) => boolean;
  readonly gradScale?: number;
}

function packed(V: number, D: number, dtype: Float, isTransposed: boolean): CaseOperand {
  const [N, K] = isTransposed ? [D, V] : [V, D];
  const panels = new Float64Array(panelElements(N, K));
  const pack = isTransposed ? packTransposedReference : packReference;
  pack(normals(V * D, 93, 2 * D ** -0.5), panels, dtype, 1, V, D);
  return { shape: [1, panels.length], dtype, values: panels };
}

function lossCase(name: string, shape: LossShape): OpCase {
  const { T, D, V, x = "f32", panels = "f32", gradients = "both", gradScale = 1 / T } = shape;
  const { isIgnored = () => false } = shape;
  const targets = integers(T, V, 92).map((id, t) => (isIgnored(t) ? -1 : id));
  const [dx, dw] = [
    gradients === "both" || gradients === "input",
    gradients === "both" || gradients === "weight",
  ];
  const grads = panels === "bf16" ? "bf16Operands" : "f32Long";
  return {
    name,
    kernel: linearCrossEntropyKernel,
    operands: {
      x: { shape: [T, D], dtype: x, values: normals(T * D, 91) },
      panels: packed(V, D, panels, false),
      panelsT: dx ? packed(V, D, panels, true) : null,
      targets: { shape: [T], dtype: "i32", values: targets },
      loss: { shape: [T], dtype: "f32" },
      hits: { shape: [T], dtype: "i32" },
      dx: dx ? { shape: [T, D], dtype: x } : null,
      dw: dw ? { shape: [V, D], dtype: "f32", values: normals(V * D, 94, 1 / T) } : null,
      workspace: { shape: [Math.min(T, 512), 32 * (Math.ceil(V / 32) + Math.ceil(D / 32))], dtype: "f32" },
    },
    params: { T, D, V, gradScale },
    tolerance: { loss: "f32Long", hits: "exact", dx: x === "bf16" ? "bf16" : grads, dw: grads },
    scratch: ["workspace"],
  };
}

const every = (n: number) => (t: number) => t % n === 0;

export const linearCrossEntropyCases: readonly OpCase[] = [
  lossCase("one token, one panel", { T: 1, D: 8, V: 32 }),
  lossCase("odd width, vocabulary of no whole panel", { T: 7, D: 5, V: 33 }),
  lossCase("a vocabulary of one token: no loss, no gradient", { T: 3, D: 4, V: 1 }),
  lossCase("every third token ignored", { T: 20, D: 16, V: 70, isIgnored: every(3) }),
  lossCase("every token ignored", { T: 5, D: 8, V: 40, isIgnored: () => true }),
  lossCase("three chunks, a prompt masked across the first border", {
    T: 1100,
    D: 8,
    V: 37,
    isIgnored: (t) => t < 600,
  }),
  lossCase("three chunks, nothing in the second", {
    T: 1027,
    D: 6,
    V: 35,
    isIgnored: (t) => t >= 512 && t < 1024,
  }),
  lossCase("no gradient", { T: 9, D: 12, V: 50, gradients: "none" }),
  lossCase("gradient of the input only", { T: 9, D: 12, V: 50, gradients: "input" }),
  lossCase("gradient of the head only", { T: 9, D: 12, V: 50, gradients: "weight" }),
  lossCase("bf16", { T: 40, D: 64, V: 200, x: "bf16", panels: "bf16", isIgnored: every(5) }),
  lossCase("bf16, odd width and vocabulary", { T: 3, D: 9, V: 45, x: "bf16", panels: "bf16" }),
  lossCase("bf16 weights, f32 input", { T: 33, D: 30, V: 96, panels: "bf16", gradScale: 0.3 }),
  lossCase("f32 weights, bf16 input", { T: 33, D: 30, V: 96, x: "bf16" }),
  lossCase("bf16 without gradients", { T: 12, D: 32, V: 130, x: "bf16", panels: "bf16", gradients: "none" }),
];

export const reduceCases: readonly OpCase[] = [0, 1, 65, 4096, 10_001].flatMap((n): OpCase[] => [
  {
    name: `${n} elements`,
    kernel: reduceSumKernel,
    // All of one sign: what cancels has no relative error.
    operands: {
      x: { shape: [n], dtype: "f32", values: normals(n, 95).map(Math.abs) },
      y: { shape: [1], dtype: "f32" },
    },
    params: { n, scale: 0.25 },
    tolerance: "f32",
  },
  {
    name: `${n} elements`,
    kernel: countPositiveKernel,
    operands: {
      x: { shape: [n], dtype: "i32", values: integers(n, 3, 96).map((id) => id - 1) },
      y: { shape: [1], dtype: "f32" },
    },
    params: { n },
    tolerance: "exact",
  },
]);

export const lossCases: readonly OpCase[] = [...linearCrossEntropyCases, ...reduceCases];
