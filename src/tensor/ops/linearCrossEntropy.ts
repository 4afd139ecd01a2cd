/**
 * The output head and its cross-entropy as one op: the logits of all tokens never exist together.
 *
 *   logits_t = x_t @ w^T            loss_t = log(sum over v of exp(logits_tv)) - logits_t[target_t]
 *   d logits_tv = g * (softmax(logits_t)_v - [v = target_t])
 *   dx = d logits @ w               dw = d logits^T @ x
 *
 * The gradients are made while the logits are at hand, in the forward pass, so the loss is a root: its weight g is
 * given to the op, and what flows into it from behind is not looked at. Targets of -1 contribute exactly nothing.
 *
 * Source: DeepSeek-V3 report, eq. (24), for MTP's loss and, with depth 0, the main one; the idea of gradients in the
 * forward pass: Hsu et al., "Liger Kernel" (2024).
 */
import { invariant } from "../../base/index.ts";
import type { Dtype } from "../dtype.ts";
import type { Param } from "../hostScalar.ts";
import { defineKernel, type Floats, type Kernel } from "../kernel.ts";
import { PANEL_WIDTH, panelIndex } from "../panels.ts";
import type { Parameter } from "../parameter.ts";
import { requireDtype, requireShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { rounding } from "./matmul.ts";
import { statisticsDtype } from "./norm.ts";

/** Tokens whose logits may exist at once; native/kernels/src/loss/linear_cross_entropy.rs has the same number. */
const CHUNK = 512;

export const linearCrossEntropyKernel: Kernel = defineKernel({
  name: "linearCrossEntropy",
  operands: {
    x: "in",
    panels: "in",
    panelsT: "in?",
    targets: "in i32",
    loss: "out",
    hits: "out i32",
    dx: "out?",
    dw: "inout?",
    workspace: "out",
  },
  params: ["T", "D", "V", "gradScale"],
  reference({ x, panels, panelsT, targets, loss, hits, dx, dw }, { T, D, V, gradScale }, dtypes) {
    invariant(dx === null || panelsT !== null, "linearCrossEntropy makes dx from panelsT");
    const round = rounding(dtypes.panels);
    const w = unpack(panels, V, D, dtypes.panels);
    const wT = dx === null || panelsT === null ? null : unpack(panelsT, D, V, dtypes.panelsT);
    loss.fill(0);
    hits.fill(0);
    dx?.fill(0);
    for (let t = 0; t < T; t++) {
      const target = targets[t]!;
      if (target === -1) continue;
      invariant(target >= 0 && target < V, `target ${target} lies in a vocabulary of ${V}`);
      const row = Float64Array.from(x.subarray(t * D, (t + 1) * D), round);
      const logits = Float64Array.from({ length: V }, (_, v) => dot(row, w, v * D));
      hits[t] = firstMaximum(logits) === target ? 1 : 0;
      const { nats, probabilities } = crossEntropy(logits, target);
      loss[t] = nats;
      const dLogits = probabilities.map((p, v) => round(gradScale * (v === target ? p - 1 : p)));
      if (dw !== null) addOuterProduct(dw, dLogits, row);
      if (dx !== null && wT !== null) {
        for (let k = 0; k < D; k++) dx[t * D + k] = dot(dLogits, wT, k * V);
      }
    }
  },
  // A weight of 0 says that no gradient is asked for.
  flops: ({ T, D, V, gradScale }) => (gradScale === 0 ? 2 : 6) * T * D * V,
});

/** The [N, K] matrix that was packed, row by row. */
function unpack(panels: Floats, N: number, K: number, dtype: Dtype | null): Float64Array {
  const w = new Float64Array(N * K);
  for (let n = 0; n < N; n++) {
    for (let k = 0; k < K; k++) w[n * K + k] = panels[panelIndex(n, k, K, dtype)]!;
  }
  return w;
}

/** Sum over k of values[k] * matrix[start + k]. */
function dot(values: Float64Array, matrix: Float64Array, start: number): number {
  let sum = 0;
  for (let k = 0; k < values.length; k++) sum += values[k]! * matrix[start + k]!;
  return sum;
}

function crossEntropy(
  logits: Float64Array,
  target: number,
): { readonly nats: number; readonly probabilities: Float64Array } {
  const greatest = logits[firstMaximum(logits)]!;
  const exponentials = logits.map((logit) => Math.exp(logit - greatest));
  const sum = exponentials.reduce((a, b) => a + b, 0);
  return {
    nats: Math.log(sum) - (logits[target]! - greatest),
    probabilities: exponentials.map((e) => e / sum),
  };
}

function firstMaximum(values: Floats): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i;
  return best;
}

function addOuterProduct(dw: Floats, dLogits: Floats, row: Floats): void {
  const D = row.length;
  for (let v = 0; v < dLogits.length; v++) {
    for (let k = 0; k < D; k++) dw[v * D + k] = dw[v * D + k]! + dLogits[v]! * row[k]!;
  }
}

export interface TokenLosses {
  /** [T], nats; 0 where the target is -1. f32, or f64 as x. */
  readonly loss: Tensor;
  /** [T] i32: 1 where the greatest logit is the target's */
  readonly hits: Tensor;
}

/**
 * The cross-entropy of each token under the head's distribution.
 *
 * While a tape records, the gradients of gradScale * sum(loss) are made here: that of the head is added to
 * `head.grad` at once, that of x is kept and handed on when the backward pass reaches `loss`. Seed `loss` with any
 * tensor of its shape to start there; the seed's numbers are ignored. Without a tape only the loss is computed.
 *
 * @param x          [T, D]
 * @param head       [V, D]
 * @param targets    [T] i32: a token id, or -1 to ignore the token
 * @param gradScale  weight of the summed loss in what is minimised; for a mean, 1 / number of targets
 * @throws           {ShapeError} if x, head or targets do not agree
 */
export function linearCrossEntropy(
  x: Tensor,
  head: Parameter,
  targets: Tensor,
  gradScale: Param,
): TokenLosses {
  const { device } = x;
  const [V, D] = [head.shape[0]!, head.shape[1]!];
  const T = x.dim(0);
  requireShape(x, [T, D], `linearCrossEntropy at ${head.path}: x`);
  requireShape(targets, [T], `linearCrossEntropy at ${head.path}: targets`);
  requireDtype(targets, ["i32"], `linearCrossEntropy at ${head.path}: targets`);
  const { panels, panelsT } = head;
  invariant(panels !== null, `${head.path} has no packed copy`);
  const loss = device.empty([T], statisticsDtype(x));
  const hits = device.empty([T], "i32");
  const records = device.tape !== null;
  const dx = records && panelsT !== null ? device.empty(x.shape, x.dtype) : null;
  const dw = records ? head.grad : null;
  using workspace = device.temporary([Math.min(T, CHUNK), toWholePanels(V) + toWholePanels(D)], "f32");
  device.run(
    linearCrossEntropyKernel,
    { x, panels, panelsT: dx === null ? null : panelsT, targets, loss, hits, dx, dw, workspace },
    { T, D, V, gradScale: dx === null && dw === null ? 0 : gradScale },
    head.path,
  );
  device.tape?.record({
    op: "linearCrossEntropy",
    inputs: [x],
    outputs: [loss],
    saved: [dx],
    inputGrad: () => [dx],
  });
  return { loss, hits };
}

function toWholePanels(width: number): number {
  return Math.ceil(width / PANEL_WIDTH) * PANEL_WIDTH;
}

export const linearCrossEntropyKernels: readonly Kernel[] = [linearCrossEntropyKernel];
