/**
 * RMSNorm of one row and its gradient, in doubles: what the references of addRmsNorm, latentKv and
 * mtpInput are made of.
 *
 *   y_i = s_i r g_i,   r = 1 / sqrt(mean(s^2) + eps)
 *   ds_i = r (dy_i g_i - s_i r m),   m = mean_j(dy_j g_j s_j r)
 *   dg_i = sum over tokens of dy_i s_i r
 *
 * Source: Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019), eq. (4); DeepSeek-V3 uses
 * it before every sub-layer and on the latents.
 */
import type { Dtype } from "../dtype.ts";
import type { Floats } from "../kernel.ts";
import type { Parameter } from "../parameter.ts";
import type { Tensor } from "../tensor.ts";

/** Tokens per chunk of a gain's gradient; native/kernels/src/pointwise/norm.rs has the same number. */
export const GAIN_CHUNK = 64;

/** Writes y = RMSNorm(s) and returns r. */
export function normRow(s: Floats, gain: Floats, eps: number, y: Floats): number {
  let squares = 0;
  for (const value of s) squares += value * value;
  const r = 1 / Math.sqrt(squares / s.length + eps);
  for (let i = 0; i < s.length; i++) y[i] = s[i]! * r * gain[i]!;
  return r;
}

/** Returns ds and adds this token's share to dg. */
export function normRowGrad(dy: Floats, s: Floats, gain: Floats, r: number, dg: Float64Array): Float64Array {
  const D = s.length;
  let mean = 0;
  for (let i = 0; i < D; i++) {
    const normed = s[i]! * r;
    mean += (dy[i]! * gain[i]! * normed) / D;
    dg[i] = dg[i]! + dy[i]! * normed;
  }
  return Float64Array.from({ length: D }, (_, i) => r * (dy[i]! * gain[i]! - s[i]! * r * mean));
}

export function addInto(target: Floats, values: Floats): void {
  for (let i = 0; i < values.length; i++) target[i] = target[i]! + values[i]!;
}

/** Where numbers that steer the arithmetic are kept: f32, or f64 where everything is. */
export function statisticsDtype(x: Tensor): Dtype {
  return x.dtype === "f64" ? "f64" : "f32";
}

/** Scratch for the partial sums of gain gradients over T tokens. The caller owns it. */
export function gainWorkspace(x: Tensor, T: number, width: number): Tensor {
  return x.device.temporary([Math.ceil(T / GAIN_CHUNK), width], statisticsDtype(x));
}

/**
 * Where the gain's gradient is added. It comes out of the same pass as the input's, so a gain that is not
 * trained gets a buffer of garbage that dies with the step of the tape.
 */
export function gainGrad(gain: Parameter): Tensor {
  return gain.grad ?? gain.master.device.empty(gain.shape, gain.master.dtype);
}
