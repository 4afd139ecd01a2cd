/**
 * Cases of the optimizers' kernels: matrices that fill no panel, batches, vectors, moments in bf16, with and without
 * clipping, sizes on both sides of a chunk of a sum.
 */
import { adamwKernel } from "../../../src/tensor/ops/optimizer/adamw.ts";
import { emaKernel } from "../../../src/tensor/ops/optimizer/ema.ts";
import { gradNormKernel, sumSquaresKernel } from "../../../src/tensor/ops/optimizer/gradNorm.ts";
import { muonKernel, muonWorkspace } from "../../../src/tensor/ops/optimizer/muon.ts";
import { panelElements } from "../../../src/tensor/panels.ts";
import type { OpCase } from "../opCase.ts";
import { normals } from "../random.ts";
import type { ToleranceClass } from "../tolerance.ts";

type Float = "f32" | "bf16";

interface AdamwShape {
  readonly dims: readonly [number, number, number];
  readonly m?: Float;
  readonly v?: Float;
  /** null: no packed copies, as for vectors */
  readonly panels?: Float | null;
  readonly isTransposed?: boolean;
  readonly norm?: number | null;
  readonly step?: number;
  readonly weightDecay?: number;
}

const stored = (dtype: Float): ToleranceClass => (dtype === "bf16" ? "bf16" : "f32");

function adamwCase(name: string, shape: AdamwShape): OpCase {
  const { dims, m = "f32", v = "f32", panels = "bf16", isTransposed = true } = shape;
  const { norm = 2.5, step = 3, weightDecay = 0.1 } = shape;
  const [B, N, K] = dims;
  const size = B * N * K;
  const packed = (elements: number) => (panels === null ? null : { shape: [B, elements], dtype: panels });
  return {
    name,
    kernel: adamwKernel,
    operands: {
      w: { shape: dims, dtype: "f32", values: normals(size, 71) },
      grad: { shape: dims, dtype: "f32", values: normals(size, 72, 0.5) },
      m: { shape: dims, dtype: m, values: normals(size, 73, 0.2) },
      // None near zero: they would magnify the rounding of the gradient without end.
      v: { shape: dims, dtype: v, values: normals(size, 74, 0.3).map((x) => x * x + 0.02) },
      norm: norm === null ? null : { shape: [1], dtype: "f32", values: [norm] },
      panels: packed(panelElements(N, K)),
      panelsT: isTransposed ? packed(panelElements(K, N)) : null,
    },
    params: { B, N, K, learningRate: 2.2e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay, step, clip: 1 },
    tolerance: {
      w: "f32",
      grad: "exact",
      m: stored(m),
      v: stored(v),
      panels: stored(panels ?? "f32"),
      panelsT: stored(panels ?? "f32"),
    },
  };
}

export const adamwCases: readonly OpCase[] = [
  adamwCase("one weight", { dims: [1, 1, 1] }),
  adamwCase("a matrix that fills no panel", { dims: [1, 45, 77] }),
  adamwCase("whole panels", { dims: [1, 64, 96] }),
  adamwCase("a batch of experts", { dims: [5, 33, 20] }),
  adamwCase("f32 panels", { dims: [2, 37, 41], panels: "f32" }),
  adamwCase("no transposed panels", { dims: [1, 40, 40], isTransposed: false }),
  adamwCase("a vector, no decay", { dims: [1, 1, 130], panels: null, weightDecay: 0 }),
  adamwCase("a long vector", { dims: [1, 1, 40_000], panels: null }),
  adamwCase("moments in bf16", { dims: [1, 34, 66], m: "bf16", v: "bf16" }),
  adamwCase("moments of two kinds", { dims: [1, 34, 66], m: "bf16", panels: null }),
  adamwCase("first step, not clipped", { dims: [1, 20, 30], step: 1, norm: 0.5 }),
  adamwCase("late step, no norm", { dims: [1, 20, 30], step: 20_000, norm: null }),
  adamwCase("a norm that is no number spoils every weight", { dims: [1, 3, 5], norm: Number.NaN }),
];

const sizes = [0, 1, 63, 4096, 4097, 20_000];

interface MuonShape {
  readonly dims: readonly [number, number, number];
  readonly m?: Float;
  readonly panels?: Float;
  readonly isTransposed?: boolean;
  readonly norm?: number | null;
  readonly values?: { readonly grad?: number[]; readonly m?: number[] };
}

/** A rate so large that the weights are mostly update: an error of the direction shows in full. */
function muonCase(name: string, shape: MuonShape): OpCase {
  const { dims, m = "f32", panels = "f32", isTransposed = true, norm = 2.5, values = {} } = shape;
  const [B, N, K] = dims;
  const size = B * N * K;
  const chain = panels === "bf16" ? "bf16Chain" : "f32Chain";
  return {
    name,
    kernel: muonKernel,
    operands: {
      w: { shape: dims, dtype: "f32", values: normals(size, 81, 0.1) },
      grad: { shape: dims, dtype: "f32", values: values.grad ?? normals(size, 82, 0.5) },
      m: { shape: dims, dtype: m, values: values.m ?? normals(size, 83, 2) },
      norm: norm === null ? null : { shape: [1], dtype: "f32", values: [norm] },
      panels: { shape: [B, panelElements(N, K)], dtype: panels },
      panelsT: isTransposed ? { shape: [B, panelElements(K, N)], dtype: panels } : null,
      workspace: { shape: [B, muonWorkspace(N, K)], dtype: "f32" },
    },
    params: { B, N, K, learningRate: 0.5, momentum: 0.95, weightDecay: 0.1, clip: 1 },
    tolerance: { w: chain, grad: "exact", m: stored(m), panels: chain, panelsT: chain },
    scratch: ["workspace"],
  };
}

const zeros = (size: number): number[] => new Array<number>(size).fill(0);

export const muonCases: readonly OpCase[] = [
  muonCase("one weight", { dims: [1, 1, 1] }),
  muonCase("a wide matrix that fills no panel", { dims: [1, 21, 45] }),
  muonCase("a tall matrix", { dims: [1, 45, 21] }),
  muonCase("a square, not clipped", { dims: [1, 32, 32], norm: 0.5 }),
  muonCase("experts, each a matrix of its own", { dims: [5, 33, 20] }),
  muonCase("no norm, no transposed panels", { dims: [1, 20, 40], norm: null, isTransposed: false }),
  muonCase("momentum in bf16", { dims: [2, 24, 18], m: "bf16" }),
  muonCase("products in bf16, wide", { dims: [1, 48, 96], panels: "bf16" }),
  muonCase("products in bf16, tall experts", { dims: [3, 50, 34], panels: "bf16" }),
  muonCase("an expert that no token visited stays but for the decay", {
    dims: [1, 12, 16],
    values: { grad: zeros(192), m: zeros(192) },
  }),
  muonCase("a norm that is no number spoils every weight", { dims: [1, 3, 5], norm: Number.NaN }),
];

export const gradNormCases: readonly OpCase[] = [
  ...sizes.flatMap((n) =>
    (["f32", "bf16"] as const).map(
      (dtype): OpCase => ({
        name: `${n} elements of ${dtype}`,
        kernel: sumSquaresKernel,
        operands: {
          x: { shape: [n], dtype, values: normals(n, 75, 1e-2) },
          partial: { shape: [1], dtype: "f32" },
        },
        params: { n },
        tolerance: "f32",
      }),
    ),
  ),
  ...[[], [4], [9, 0, 0, 16], [1, Number.NaN], [1, Number.POSITIVE_INFINITY]].map(
    (partials): OpCase => ({
      name: `of [${partials.join(", ")}]`,
      kernel: gradNormKernel,
      operands: {
        partials: { shape: [partials.length], dtype: "f32", values: partials },
        norm: { shape: [1], dtype: "f32" },
      },
      params: { P: partials.length },
      tolerance: "f32",
    }),
  ),
];

export const emaCases: readonly OpCase[] = [
  { n: 0, ema: "f32", w: "f32", decay: 0.5 },
  { n: 1000, ema: "f32", w: "f32", decay: 0.9999 },
  { n: 1001, ema: "f32", w: "bf16", decay: 0.9 },
  { n: 33, ema: "bf16", w: "f32", decay: 0.5 },
  { n: 77, ema: "f32", w: "f32", decay: 0 },
  { n: 77, ema: "f32", w: "f32", decay: 1 },
].map(({ n, ema, w, decay }): OpCase => {
  const [averaged, weights] = [ema as Float, w as Float];
  return {
    name: `${n} ${averaged} towards ${weights}, decay ${decay}`,
    kernel: emaKernel,
    operands: {
      ema: { shape: [n], dtype: averaged, values: normals(n, 76) },
      w: { shape: [n], dtype: weights, values: normals(n, 77) },
    },
    params: { n, decay },
    tolerance: stored(averaged),
  };
});

export const optimCases: readonly OpCase[] = [...adamwCases, ...muonCases, ...gradNormCases, ...emaCases];
