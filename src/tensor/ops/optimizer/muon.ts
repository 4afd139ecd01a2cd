/**
 * Muon: one step of one matrix, or of a batch of them (experts), its packed copies included.
 *
 *   g = grad * min(1, clip / (norm + 1e-6))
 *   m = momentum m + g                              u = g + momentum m                    (Nesterov)
 *   o = newtonSchulz(u / (|u| + 1e-7))              singular values of u all moved near 1
 *   w = w - learningRate * (weightDecay w + 0.2 sqrt(max(N, K)) o)
 *
 * The factor 0.2 sqrt(max(N, K)) gives the update the root mean square that AdamW's usually has, so that both share
 * one learning rate and one decay. One momentum is kept where AdamW keeps two moments.
 *
 * Source: Jordan, "Muon: An optimizer for hidden layers in neural networks" (2024); Liu et al., "Muon is scalable for
 * LLM training" (Moonlight, 2025), section 2.2 and eq. (4).
 */
import { invariant } from "../../../base/index.ts";
import type { Param } from "../../hostScalar.ts";
import { defineKernel, type Floats, type Kernel } from "../../kernel.ts";
import { panelElements } from "../../panels.ts";
import type { Parameter } from "../../parameter.ts";
import { requireShape } from "../../shape.ts";
import type { Tensor } from "../../tensor.ts";
import { rounding } from "../matmul.ts";
import { packReference, packTransposedReference } from "../packWeight.ts";

/** Of the polynomial a x + b x^3 + c x^5: steep at 0, between about 0.7 and 1.2 after five rounds. */
const [a, b, c] = [3.4445, -4.775, 2.0315];
const ITERATIONS = 5;

export const muonKernel: Kernel = defineKernel({
  name: "muon",
  operands: {
    w: "inout",
    grad: "inout",
    m: "inout",
    norm: "in?",
    panels: "out",
    panelsT: "out?",
    workspace: "out",
  },
  params: ["B", "N", "K", "learningRate", "momentum", "weightDecay", "clip"],
  reference({ w, grad, m, norm, panels, panelsT }, { B, N, K, ...settings }, dtypes) {
    const { learningRate, momentum, weightDecay, clip } = settings;
    // A NaN norm makes the factor NaN: it is never taken for a small one.
    const factor = norm === null ? 1 : Math.min(1, clip / (norm[0]! + 1e-6));
    const rate = learningRate * 0.2 * Math.sqrt(Math.max(N, K));
    const u = new Float64Array(N * K);
    for (let matrix = 0; matrix < B; matrix++) {
      const start = matrix * N * K;
      for (let i = 0; i < N * K; i++) {
        const g = grad[start + i]! * factor;
        const mNew = momentum * m[start + i]! + g;
        m[start + i] = mNew;
        u[i] = g + momentum * mNew;
        grad[start + i] = 0;
      }
      const o = orthogonalize(u, N, K, rounding(dtypes.panels));
      for (let i = 0; i < N * K; i++)
        w[start + i] = w[start + i]! * (1 - learningRate * weightDecay) - rate * o[i]!;
    }
    packReference(w, panels, dtypes.panels, B, N, K);
    if (panelsT !== null) packTransposedReference(w, panelsT, dtypes.panelsT, B, N, K);
  },
  flops: ({ B, N, K }) => {
    const [n, k] = [Math.min(N, K), Math.max(N, K)];
    return B * ITERATIONS * (4 * n * n * k + 2 * n ** 3);
  },
});

/** Newton-Schulz on [N, K]; products round their operands as the packed weights' dtype says. */
function orthogonalize(u: Float64Array, N: number, K: number, round: (x: number) => number): Float64Array {
  const length = Math.sqrt(u.reduce((sum, value) => sum + value * value, 0));
  let x = u.map((value) => value / (length + 1e-7));
  // The square of the shorter side is the smaller matrix.
  if (N > K) x = transpose(x, N, K);
  const [n, k] = [Math.min(N, K), Math.max(N, K)];
  for (let i = 0; i < ITERATIONS; i++) {
    const gram = timesTransposed(x, x, n, n, k, round);
    const square = timesTransposed(gram, gram, n, n, n, round);
    const polynomial = square.map((value, at) => c * value + b * gram[at]! + (at % (n + 1) === 0 ? a : 0));
    x = timesTransposed(polynomial, transpose(x, n, k), n, k, n, round);
  }
  return N > K ? transpose(x, n, k) : x;
}

function transpose(x: Floats, rows: number, columns: number): Float64Array<ArrayBuffer> {
  const turned = new Float64Array(rows * columns);
  for (let r = 0; r < rows; r++) {
    for (let k = 0; k < columns; k++) turned[k * rows + r] = x[r * columns + k]!;
  }
  return turned;
}

/** x [M, K] @ w [N, K]^T */
function timesTransposed(
  x: Floats,
  w: Floats,
  M: number,
  N: number,
  K: number,
  round: (value: number) => number,
): Float64Array<ArrayBuffer> {
  const [left, right] = [x.map(round), w.map(round)];
  const y = new Float64Array(M * N);
  for (let r = 0; r < M; r++) {
    for (let n = 0; n < N; n++) {
      let sum = 0;
      for (let k = 0; k < K; k++) sum += left[r * K + k]! * right[n * K + k]!;
      y[r * N + n] = sum;
    }
  }
  return y;
}

/** Floats of scratch space per matrix: two copies of it, two squares of its shorter side, its panels. */
export function muonWorkspace(N: number, K: number): number {
  const [n, k] = [Math.min(N, K), Math.max(N, K)];
  const lines = (floats: number): number => Math.ceil(floats / 16) * 16;
  return 2 * lines(n * k) + 2 * lines(n * n) + Math.max(panelElements(n, k), panelElements(k, n));
}

export interface MuonSettings {
  readonly learningRate: Param;
  readonly momentum: number;
  readonly weightDecay: number;
  /** Greatest global norm that gradients keep; has no effect without a norm. */
  readonly clip: number;
}

/**
 * Updates a matrix, its momentum and its packed copies in place. Its gradient is used up: it is zero afterwards.
 *
 * @param momentum  of the parameter's shape; f32 or bf16
 * @param norm      [1], the global gradient norm; null does not clip
 * @throws          {ShapeError} if the momentum has another shape than the parameter
 */
export function muonStep(
  parameter: Parameter,
  momentum: Tensor,
  norm: Tensor | null,
  settings: MuonSettings,
): void {
  const { master: w, grad, fp8, path } = parameter;
  invariant(grad !== null, `${path} is trained`);
  invariant(
    parameter.panels !== null,
    `${path} is a matrix that is multiplied: Muon has no meaning for vectors and tables`,
  );
  requireShape(momentum, parameter.shape, `muon at ${path}: m`);
  if (norm !== null) requireShape(norm, [1], `muon at ${path}: norm`);
  const [B, N, K] = parameter.dims;
  using _scope = w.device.scope();
  const workspace = w.device.empty([B, muonWorkspace(N, K)], "f32");
  // FP8 is no format for the rounds: they run in bf16, and the scale of a block needs all of its weights first.
  const { panels, panelsT } =
    fp8 === null ? parameter : { panels: w.device.empty([B, panelElements(N, K)], "bf16"), panelsT: null };
  const operands = { w, grad, m: momentum, norm, panels, panelsT, workspace };
  w.device.run(muonKernel, operands, { B, N, K, ...settings }, path);
  if (fp8 !== null) parameter.repack();
}

export const muonKernels: readonly Kernel[] = [muonKernel];
