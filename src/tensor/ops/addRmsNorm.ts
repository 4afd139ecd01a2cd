/**
 * RMSNorm, with the addition to the residual stream before it: one pass over memory instead of two.
 *
 * The mean square is that of the sum before it is rounded to the stream's dtype, if that is bf16. The gain's
 * gradient is a by-product of the input's pass and is therefore added with it, not in the weight part.
 *
 * T tokens, D channels.
 *
 * Source: DeepSeek-V3 report, section 2.1 (pre-norm layers); statistics in f32 as in the released code.
 */
import type { Dtype } from "../dtype.ts";
import { defineKernel, type Kernel } from "../kernel.ts";
import type { Parameter } from "../parameter.ts";
import { requireShape } from "../shape.ts";
import type { Remake, Tensor } from "../tensor.ts";
import { addKernel } from "./elementwise.ts";
import { addInto, gainGrad, gainWorkspace, normRow, normRowGrad, statisticsDtype } from "./norm.ts";

export const addRmsNormKernel: Kernel = defineKernel({
  name: "addRmsNorm",
  operands: { x: "in", delta: "in?", gain: "in", sum: "out?", y: "out", rstd: "out" },
  params: ["T", "D", "eps"],
  reference({ x, delta, gain, sum, y, rstd }, { T, D, eps }, dtypes) {
    // An f32 sum, as native code has it: norming what was stored then gives the same bits again.
    const s = dtypes.x === "f64" ? new Float64Array(D) : new Float32Array(D);
    for (let t = 0; t < T; t++) {
      for (let i = 0; i < D; i++) s[i] = x[t * D + i]! + (delta?.[t * D + i] ?? 0);
      rstd[t] = normRow(s, gain, eps, y.subarray(t * D, (t + 1) * D));
      sum?.set(s, t * D);
    }
  },
  flops: ({ T, D }) => 5 * T * D,
});

export const addRmsNormBackwardKernel: Kernel = defineKernel({
  name: "addRmsNormBackward",
  operands: {
    dy: "in",
    dsum: "in?",
    s: "in",
    gain: "in",
    rstd: "in",
    dx: "out",
    dgain: "inout",
    workspace: "out",
  },
  params: ["T", "D"],
  reference({ dy, dsum, s, gain, rstd, dx, dgain }, { T, D }) {
    const dg = new Float64Array(D);
    for (let t = 0; t < T; t++) {
      const [from, to] = [t * D, (t + 1) * D];
      const ds = normRowGrad(dy.subarray(from, to), s.subarray(from, to), gain, rstd[t]!, dg);
      if (dsum !== null) addInto(ds, dsum.subarray(from, to));
      dx.set(ds, from);
    }
    addInto(dgain, dg);
  },
  flops: ({ T, D }) => 10 * T * D,
});

/**
 * RMSNorm(x) * gain.
 *
 * @param x      [T, D]
 * @param gain   [D]
 * @param dtype  of the result
 * @returns      [T, D]
 * @throws       {ShapeError} if the gain is not [D]
 */
export function rmsNorm(x: Tensor, gain: Parameter, eps: number, dtype: Dtype): Tensor {
  return forward(x, null, gain, eps, null, dtype);
}

/**
 * x + delta, and its RMSNorm.
 *
 * The gradients of x and delta are equal, and both get the very same tensor.
 *
 * @param x         [T, D], the residual stream
 * @param delta     [T, D], what a sub-layer adds to it
 * @param gain      [D]
 * @param sumDtype  of the sum: the residual stream's
 * @param dtype     of the normed result
 * @throws          {ShapeError} if delta is not [T, D] or the gain not [D]
 */
export function addRmsNorm(
  x: Tensor,
  delta: Tensor,
  gain: Parameter,
  eps: number,
  sumDtype: Dtype,
  dtype: Dtype,
): { readonly sum: Tensor; readonly y: Tensor } {
  requireShape(delta, x.shape, `${gain.path}: delta`);
  const sum = x.device.empty(x.shape, sumDtype);
  return { sum, y: forward(x, delta, gain, eps, sum, dtype) };
}

function forward(
  x: Tensor,
  delta: Tensor | null,
  gain: Parameter,
  eps: number,
  sum: Tensor | null,
  dtype: Dtype,
): Tensor {
  const { device } = x;
  const D = x.dim(-1);
  const T = x.size / D;
  requireShape(gain, [D], gain.path);
  const y = device.empty(x.shape, dtype);
  const rstd = device.empty([T], statisticsDtype(x));
  device.run(addRmsNormKernel, { x, delta, gain: gain.master, sum, y, rstd }, { T, D, eps }, gain.path);
  const s = sum ?? x;
  const normAgain: Remake = {
    outputs: [y],
    reads: [s],
    run() {
      const operands = { x: s, delta: null, gain: gain.master, sum: null, y, rstd };
      device.run(addRmsNormKernel, operands, { T, D, eps }, gain.path);
    },
  };

  const backward = (dsum: Tensor | null, dy: Tensor): Tensor => {
    const dx = device.empty(x.shape, x.dtype);
    using workspace = gainWorkspace(x, T, D);
    const operands = { dy, dsum, s, gain: gain.master, rstd, dx, dgain: gainGrad(gain), workspace };
    device.run(addRmsNormBackwardKernel, operands, { T, D }, gain.path);
    return dx;
  };
  if (sum === null) {
    device.tape?.record({
      op: "rmsNorm",
      inputs: [x],
      outputs: [y],
      saved: [s, rstd],
      remakes: [normAgain],
      inputGrad: (dy) => [dy === null ? null : backward(null, dy)],
    });
  } else {
    device.tape?.record({
      op: "addRmsNorm",
      inputs: [x, delta],
      outputs: [sum, y],
      saved: [s, rstd],
      // A sum that was rounded to bf16 is not the one that was normed.
      remakes: sum.dtype === "bf16" ? [] : [sumAgain(x, delta, sum), normAgain],
      inputGrad(dsum, dy) {
        const dx = dy === null ? dsum : backward(dsum, dy);
        return [dx, dx];
      },
    });
  }
  return y;
}

function sumAgain(a: Tensor, b: Tensor | null, y: Tensor): Remake {
  return { outputs: [y], reads: [a, b], run: () => a.device.run(addKernel, { a, b, y }, { n: a.size }) };
}

export const addRmsNormKernels: readonly Kernel[] = [addRmsNormKernel, addRmsNormBackwardKernel];
