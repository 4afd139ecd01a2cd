/** Cases of rotated channels: rope itself, and the latent and the key that share one row; positions that start anew. */

import { latentKvBackwardKernel, latentKvKernel } from "../../../../src/tensor/ops/latentKv.ts";
import { ropeKernel } from "../../../../src/tensor/ops/rope.ts";
import type { CaseOperand, OpCase } from "../../opCase.ts";
import { dtypePairs, given, random, wanted, whole } from "../operands.ts";
import { scales } from "./norms.ts";

function table(P: number, half: number): { readonly cos: CaseOperand; readonly sin: CaseOperand } {
  const angles = Array.from(
    { length: P * half },
    (_, i) => Math.floor(i / half) * 100 ** (-(i % half) / half),
  );
  return {
    cos: given([P, half], angles.map(Math.cos)),
    sin: given([P, half], angles.map(Math.sin)),
  };
}

/** Two sequences one after the other: positions start anew. */
function positions(T: number, P: number): CaseOperand {
  return whole(
    [T],
    Array.from({ length: T }, (_, t) => (t < T / 2 ? t : t - Math.ceil(T / 2)) % P),
  );
}

export const ropeCases: readonly OpCase[] = [
  { T: 1, heads: 1, stride: 2, offset: 0, R: 2 },
  { T: 9, heads: 3, stride: 24, offset: 16, R: 8 },
  { T: 70, heads: 4, stride: 48, offset: 32, R: 16 },
  { T: 5, heads: 2, stride: 75, offset: 3, R: 70 },
].flatMap(({ T, heads, stride, offset, R }, i) =>
  dtypePairs.flatMap(([x, y]) =>
    [1, -1].map(
      (direction): OpCase => ({
        name: `[${T}, ${heads} x ${stride}] ${R} channels from ${offset}, ${x} to ${y}, direction ${direction}`,
        kernel: ropeKernel,
        operands: {
          x: random([T, heads * stride], x, i),
          ...table(40, R / 2),
          positions: positions(T, 40),
          y: wanted([T, heads * stride], y),
        },
        params: { T, heads, stride, offset, R, direction },
        tolerance: y,
      }),
    ),
  ),
);

export const latentKvCases: readonly OpCase[] = [
  { T: 1, C: 3, R: 2 },
  { T: 67, C: 32, R: 8 },
  { T: 129, C: 70, R: 18 },
].flatMap(({ T, C, R }, i) =>
  dtypePairs.flatMap(([x, y]): OpCase[] => [
    {
      name: `[${T}, ${C} + ${R}] ${x} to ${y}`,
      kernel: latentKvKernel,
      operands: {
        kvA: random([T, C + R], x, i),
        gain: random([C], "f32", i + 5, 1),
        ...table(80, R / 2),
        positions: positions(T, 80),
        latent: wanted([T, C], y),
        kRope: wanted([T, R], y),
        rstd: wanted([T], "f32"),
      },
      params: { T, C, R, eps: 1e-5 },
      tolerance: { latent: y, kRope: y, rstd: "f32" },
    },
    {
      name: `[${T}, ${C} + ${R}] ${x}, gradients ${y}`,
      kernel: latentKvBackwardKernel,
      operands: {
        dLatent: random([T, C], y, i + 10),
        dkRope: random([T, R], y, i + 15),
        kvA: random([T, C + R], x, i),
        gain: random([C], "f32", i + 5, 1),
        rstd: scales([T], i + 20),
        ...table(80, R / 2),
        positions: positions(T, 80),
        dkvA: wanted([T, C + R], x),
        dgain: random([C], "f32", i + 25),
        workspace: wanted([Math.ceil(T / 64), C], "f32"),
      },
      params: { T, C, R },
      tolerance: { dkvA: x, dgain: "f32" },
      scratch: ["workspace"],
    },
  ]),
);
