/**
 * AdamW: one step of one parameter, its packed copies included.
 *
 *   g = grad * min(1, clip / (norm + 1e-6))
 *   m = beta1 m + (1 - beta1) g                     v = beta2 v + (1 - beta2) g^2
 *   w = w - learningRate * (weightDecay w + mHat / (sqrt(vHat) + eps))
 *   mHat = m / (1 - beta1^step)                     vHat = v / (1 - beta2^step)
 *
 * Weights, gradient and moments are read once, and the panels of the next step come out of the same read. The
 * gradient is zeroed while it is in the cache: clearing it before the next step would fetch it from memory again.
 *
 * Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019), algorithm 2; DeepSeek-V3 report,
 * section 4.2, for the settings, and section 3.3.3 for moments in bf16.
 */
import { invariant } from "../../../base/index.ts";
import { type Param, paramValue } from "../../hostScalar.ts";
import { defineKernel, type Kernel } from "../../kernel.ts";
import type { Parameter } from "../../parameter.ts";
import { requireShape } from "../../shape.ts";
import type { Tensor } from "../../tensor.ts";
import { packReference, packTransposedReference } from "../packWeight.ts";

export const adamwKernel: Kernel = defineKernel({
  name: "adamw",
  operands: {
    w: "inout",
    grad: "inout",
    m: "inout",
    v: "inout",
    norm: "in?",
    panels: "out?",
    panelsT: "out?",
  },
  params: ["B", "N", "K", "learningRate", "beta1", "beta2", "eps", "weightDecay", "step", "clip"],
  reference({ w, grad, m, v, norm, panels, panelsT }, { B, N, K, ...settings }, dtypes) {
    const { learningRate, beta1, beta2, eps, weightDecay, step, clip } = settings;
    // A NaN norm makes the factor NaN: it is never taken for a small one.
    const factor = norm === null ? 1 : Math.min(1, clip / (norm[0]! + 1e-6));
    const [mScale, vScale] = [1 / (1 - beta1 ** step), 1 / (1 - beta2 ** step)];
    for (let i = 0; i < B * N * K; i++) {
      const g = grad[i]! * factor;
      const mNew = beta1 * m[i]! + (1 - beta1) * g;
      const vNew = beta2 * v[i]! + (1 - beta2) * g * g;
      // The weight follows the moments before they are rounded for storage.
      const direction = (mNew * mScale) / (Math.sqrt(vNew * vScale) + eps);
      w[i] = w[i]! - learningRate * (weightDecay * w[i]! + direction);
      m[i] = mNew;
      v[i] = vNew;
      grad[i] = 0;
    }
    if (panels !== null) packReference(w, panels, dtypes.panels, B, N, K);
    if (panelsT !== null) packTransposedReference(w, panelsT, dtypes.panelsT, B, N, K);
  },
  flops: ({ B, N, K }) => 14 * B * N * K,
});

/** Running averages of a parameter's gradient and of its square, of the parameter's shape; f32 or bf16. */
export interface Moments {
  readonly m: Tensor;
  readonly v: Tensor;
}

export interface AdamwSettings {
  readonly learningRate: Param;
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  /** 0 for vectors: norms and biases do not decay. */
  readonly weightDecay: number;
  /** Number of this update, counted from 1: what the bias correction needs. */
  readonly step: Param;
  /** Greatest global norm that gradients keep; has no effect without a norm. */
  readonly clip: number;
}

/**
 * Updates a parameter, its moments and its packed copies in place. Its gradient is used up: it is zero afterwards.
 *
 * @param norm  [1], the global gradient norm; null does not clip
 * @throws      {ShapeError} if the moments have another shape than the parameter
 */
export function adamwStep(
  parameter: Parameter,
  moments: Moments,
  norm: Tensor | null,
  settings: AdamwSettings,
): void {
  const { master: w, grad, fp8, path } = parameter;
  invariant(grad !== null, `${path} is trained`);
  // The scale of an FP8 block needs all of its weights first.
  const { panels, panelsT } = fp8 === null ? parameter : { panels: null, panelsT: null };
  const step = paramValue(settings.step);
  invariant(step >= 1, `AdamW counts its steps from 1, not ${step}`);
  const { m, v } = moments;
  requireShape(m, parameter.shape, `adamw at ${path}: m`);
  requireShape(v, parameter.shape, `adamw at ${path}: v`);
  if (norm !== null) requireShape(norm, [1], `adamw at ${path}: norm`);
  const [B, N, K] = parameter.dims;
  w.device.run(adamwKernel, { w, grad, m, v, norm, panels, panelsT }, { B, N, K, ...settings }, path);
  if (fp8 !== null) parameter.repack();
}

export const adamwKernels: readonly Kernel[] = [adamwKernel];
