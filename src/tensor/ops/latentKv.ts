/**
 * What attention keeps of a token: its normed latent and the one rotated key that all heads share.
 *
 *   [c ; k] = kvA,   latent = RMSNorm(c) * gain,   kRope = RoPE(k)
 *
 * These C + R numbers are the whole cache of a token and layer.
 *
 * T tokens, C latent channels, R rotary channels.
 *
 * Source: DeepSeek-V3 report, section 2.1.1, eq. (1) and (3); the norm on the latent from the released code.
 */
import type { Dtype } from "../dtype.ts";
import { defineKernel, type Kernel } from "../kernel.ts";
import type { Parameter } from "../parameter.ts";
import { requireShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { fill } from "./elementwise.ts";
import { addInto, gainGrad, gainWorkspace, normRow, normRowGrad, statisticsDtype } from "./norm.ts";
import { anglesAt, type RopeTable, requireRope, rotate } from "./rope.ts";

export const latentKvKernel: Kernel = defineKernel({
  name: "latentKv",
  operands: {
    kvA: "in",
    gain: "in",
    cos: "in",
    sin: "in",
    positions: "in i32",
    latent: "out",
    kRope: "out",
    rstd: "out",
  },
  params: ["T", "C", "R", "eps"],
  reference({ kvA, gain, cos, sin, positions, latent, kRope, rstd }, { T, C, R, eps }) {
    for (let t = 0; t < T; t++) {
      const row = kvA.subarray(t * (C + R), (t + 1) * (C + R));
      rstd[t] = normRow(row.subarray(0, C), gain, eps, latent.subarray(t * C, (t + 1) * C));
      const angles = anglesAt(cos, sin, positions[t]!, R);
      rotate(row.subarray(C), angles, 1, kRope.subarray(t * R, (t + 1) * R));
    }
  },
  flops: ({ T, C, R }) => 4 * T * C + 3 * T * R,
});

export const latentKvBackwardKernel: Kernel = defineKernel({
  name: "latentKvBackward",
  operands: {
    dLatent: "in",
    dkRope: "in",
    kvA: "in",
    gain: "in",
    rstd: "in",
    cos: "in",
    sin: "in",
    positions: "in i32",
    dkvA: "out",
    dgain: "inout",
    workspace: "out",
  },
  params: ["T", "C", "R"],
  reference({ dLatent, dkRope, kvA, gain, rstd, cos, sin, positions, dkvA, dgain }, { T, C, R }) {
    const dg = new Float64Array(C);
    for (let t = 0; t < T; t++) {
      const from = t * (C + R);
      const c = kvA.subarray(from, from + C);
      dkvA.set(normRowGrad(dLatent.subarray(t * C, (t + 1) * C), c, gain, rstd[t]!, dg), from);
      const angles = anglesAt(cos, sin, positions[t]!, R);
      rotate(dkRope.subarray(t * R, (t + 1) * R), angles, -1, dkvA.subarray(from + C, from + C + R));
    }
    addInto(dgain, dg);
  },
  flops: ({ T, C, R }) => 9 * T * C + 3 * T * R,
});

/**
 * Latent and rotary key of each token.
 *
 * @param kvA        [T, C + R], the joint projection: latent first
 * @param gain       [C]
 * @param positions  [T] i32
 * @returns          latent [T, C] and kRope [T, R], both in `dtype`
 * @throws           {ShapeError} if gain, table and positions do not fit kvA
 */
export function latentKv(
  kvA: Tensor,
  gain: Parameter,
  eps: number,
  table: RopeTable,
  positions: Tensor,
  C: number,
  dtype: Dtype,
): { readonly latent: Tensor; readonly kRope: Tensor } {
  const { device } = kvA;
  const T = kvA.size / kvA.dim(-1);
  const R = 2 * table.cos.dim(-1);
  requireShape(kvA, [T, C + R], `${gain.path}: kvA`);
  requireShape(gain, [C], gain.path);
  requireRope(table, positions, T, R, "latentKv");
  const latent = device.empty([T, C], dtype);
  const kRope = device.empty([T, R], dtype);
  const rstd = device.empty([T], statisticsDtype(kvA));
  const given = { kvA, gain: gain.master, cos: table.cos, sin: table.sin, positions };
  const make = (): void =>
    device.run(latentKvKernel, { ...given, latent, kRope, rstd }, { T, C, R, eps }, gain.path);
  make();
  device.tape?.record({
    op: "latentKv",
    inputs: [kvA],
    outputs: [latent, kRope],
    saved: [kvA, rstd, table.cos, table.sin, positions],
    remakes: [{ outputs: [latent, kRope], reads: [kvA], run: make }],
    inputGrad(dLatent, dkRope) {
      const dkvA = device.empty(kvA.shape, kvA.dtype);
      using workspace = gainWorkspace(kvA, T, C);
      const grads = { dLatent: dLatent ?? zeros(latent), dkRope: dkRope ?? zeros(kRope) };
      const results = { dkvA, dgain: gainGrad(gain), workspace };
      device.run(latentKvBackwardKernel, { ...grads, ...given, rstd, ...results }, { T, C, R }, gain.path);
      return [dkvA];
    },
  });
  return { latent, kRope };
}

function zeros(like: Tensor): Tensor {
  const tensor = like.device.empty(like.shape, like.dtype);
  fill(tensor, 0);
  return tensor;
}

export const latentKvKernels: readonly Kernel[] = [latentKvKernel, latentKvBackwardKernel];
