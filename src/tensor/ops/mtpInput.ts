/**
 * What a multi-token-prediction module reads: the next token's embedding beside the hidden state, each
 * normed by itself.
 *
 *   z = [ RMSNorm(e) * eGain ; RMSNorm(h) * hGain ]
 *
 * The report prints the hidden state first; the released weights have the embedding first, and so do we.
 *
 * T tokens, D channels.
 *
 * Source: DeepSeek-V3 report, section 2.2, eq. (21).
 */
import type { Dtype } from "../dtype.ts";
import { defineKernel, type Kernel } from "../kernel.ts";
import type { Parameter } from "../parameter.ts";
import { requireShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { addInto, gainGrad, gainWorkspace, normRow, normRowGrad, statisticsDtype } from "./norm.ts";

export const mtpInputKernel: Kernel = defineKernel({
  name: "mtpInput",
  operands: { e: "in", h: "in", eGain: "in", hGain: "in", z: "out", rstd: "out" },
  params: ["T", "D", "eps"],
  reference({ e, h, eGain, hGain, z, rstd }, { T, D, eps }) {
    for (let t = 0; t < T; t++) {
      const [from, to] = [t * D, (t + 1) * D];
      rstd[2 * t] = normRow(e.subarray(from, to), eGain, eps, z.subarray(2 * from, from + to));
      rstd[2 * t + 1] = normRow(h.subarray(from, to), hGain, eps, z.subarray(from + to, 2 * to));
    }
  },
  flops: ({ T, D }) => 8 * T * D,
});

export const mtpInputBackwardKernel: Kernel = defineKernel({
  name: "mtpInputBackward",
  operands: {
    dz: "in",
    e: "in",
    h: "in",
    eGain: "in",
    hGain: "in",
    rstd: "in",
    de: "out",
    dh: "out",
    deGain: "inout",
    dhGain: "inout",
    workspace: "out",
  },
  params: ["T", "D"],
  reference({ dz, e, h, eGain, hGain, rstd, de, dh, deGain, dhGain }, { T, D }) {
    const [eSum, hSum] = [new Float64Array(D), new Float64Array(D)];
    for (let t = 0; t < T; t++) {
      const [from, to] = [t * D, (t + 1) * D];
      const [dzE, dzH] = [dz.subarray(2 * from, from + to), dz.subarray(from + to, 2 * to)];
      de.set(normRowGrad(dzE, e.subarray(from, to), eGain, rstd[2 * t]!, eSum), from);
      dh.set(normRowGrad(dzH, h.subarray(from, to), hGain, rstd[2 * t + 1]!, hSum), from);
    }
    addInto(deGain, eSum);
    addInto(dhGain, hSum);
  },
  flops: ({ T, D }) => 18 * T * D,
});

/**
 * Normed embedding and normed hidden state, side by side.
 *
 * @param e      [T, D], embedding of the token that lies k ahead
 * @param h      [T, D], hidden state of the main model or of the module before
 * @param eGain  [D]
 * @param hGain  [D]
 * @returns      [T, 2D], the embedding first
 * @throws       {ShapeError} if h or a gain does not fit e
 */
export function mtpInput(
  e: Tensor,
  h: Tensor,
  eGain: Parameter,
  hGain: Parameter,
  eps: number,
  dtype: Dtype,
): Tensor {
  const { device } = e;
  const D = e.dim(-1);
  const T = e.size / D;
  requireShape(h, e.shape, `${hGain.path}: h`);
  requireShape(eGain, [D], eGain.path);
  requireShape(hGain, [D], hGain.path);
  const z = device.empty([T, 2 * D], dtype);
  const rstd = device.empty([T, 2], statisticsDtype(e));
  const given = { e, h, eGain: eGain.master, hGain: hGain.master };
  const make = (): void => device.run(mtpInputKernel, { ...given, z, rstd }, { T, D, eps }, eGain.path);
  make();
  device.tape?.record({
    op: "mtpInput",
    inputs: [e, h],
    outputs: [z],
    saved: [e, h, rstd],
    remakes: [{ outputs: [z], reads: [e, h], run: make }],
    inputGrad(dz) {
      if (dz === null) return [null, null];
      const de = device.empty(e.shape, e.dtype);
      const dh = device.empty(h.shape, h.dtype);
      using workspace = gainWorkspace(e, T, 2 * D);
      const gains = { deGain: gainGrad(eGain), dhGain: gainGrad(hGain) };
      device.run(
        mtpInputBackwardKernel,
        { dz, ...given, rstd, de, dh, ...gains, workspace },
        { T, D },
        eGain.path,
      );
      return [de, dh];
    },
  });
  return z;
}

export const mtpInputKernels: readonly Kernel[] = [mtpInputKernel, mtpInputBackwardKernel];
