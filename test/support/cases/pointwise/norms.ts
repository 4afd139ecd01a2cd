/** Cases of RMSNorm, of one row and of MTP's two: absent operands, chunks of gain gradients that end early. */

import { addRmsNormBackwardKernel, addRmsNormKernel } from "../../../../src/tensor/ops/addRmsNorm.ts";
import { mtpInputBackwardKernel, mtpInputKernel } from "../../../../src/tensor/ops/mtpInput.ts";
import type { CaseOperand, OpCase } from "../../opCase.ts";
import { dtypePairs, type Float, random, wanted } from "../operands.ts";

/** Inverse root mean squares as a forward pass would have left them: any positive numbers do. */
export function scales(shape: readonly number[], seed: number): CaseOperand {
  const operand = random(shape, "f32", seed);
  return { ...operand, values: Array.from(operand.values ?? [], (v) => Math.exp(v / 4)) };
}

interface NormSize {
  readonly T: number;
  readonly D: number;
}

const NORM_SIZES: readonly NormSize[] = [
  { T: 1, D: 1 },
  { T: 3, D: 37 },
  { T: 65, D: 64 },
  { T: 130, D: 100 },
  { T: 5, D: 1030 },
  { T: 0, D: 16 },
];

export const rmsNormCases: readonly OpCase[] = NORM_SIZES.flatMap(({ T, D }, i) => [
  normCase(T, D, i, "f32", null, "f32"),
  normCase(T, D, i, "f32", "bf16", "bf16"),
  normCase(T, D, i, "bf16", "f32", "f32"),
  normBackwardCase(T, D, i, ["f32", "f32", "f32"], null),
  normBackwardCase(T, D, i, ["bf16", "f32", "f32"], "f32"),
  normBackwardCase(T, D, i, ["f32", "bf16", "bf16"], "bf16"),
]);

function normCase(T: number, D: number, seed: number, x: Float, delta: Float | null, y: Float): OpCase {
  return {
    name: `[${T}, ${D}] ${x}${delta === null ? ", nothing added" : ` + ${delta}`} to ${y}`,
    kernel: addRmsNormKernel,
    operands: {
      x: random([T, D], x, seed, 0.5),
      delta: delta === null ? null : random([T, D], delta, seed + 10),
      gain: random([D], "f32", seed + 20, 1),
      sum: delta === null ? null : wanted([T, D], x),
      y: wanted([T, D], y),
      rstd: wanted([T], "f32"),
    },
    params: { T, D, eps: 1e-6 },
    tolerance: { sum: x, y, rstd: "f32" },
  };
}

function normBackwardCase(
  T: number,
  D: number,
  seed: number,
  [dy, s, dx]: readonly [Float, Float, Float],
  dsum: Float | null,
): OpCase {
  return {
    name: `[${T}, ${D}] dy ${dy}, s ${s}, dsum ${dsum ?? "absent"} to ${dx}`,
    kernel: addRmsNormBackwardKernel,
    operands: {
      dy: random([T, D], dy, seed + 30),
      dsum: dsum === null ? null : random([T, D], dsum, seed + 40),
      s: random([T, D], s, seed + 50, 0.5),
      gain: random([D], "f32", seed + 60, 1),
      rstd: scales([T], seed + 70),
      dx: wanted([T, D], dx),
      dgain: random([D], "f32", seed + 80),
      workspace: wanted([Math.ceil(T / 64), D], "f32"),
    },
    params: { T, D },
    tolerance: { dx, dgain: "f32" },
    scratch: ["workspace"],
  };
}

export const mtpInputCases: readonly OpCase[] = [
  { T: 1, D: 5 },
  { T: 66, D: 48 },
  { T: 4, D: 200 },
].flatMap(({ T, D }, i) =>
  dtypePairs.flatMap(([x, z]): OpCase[] => [
    {
      name: `[${T}, ${D}] e ${x}, h f32 to ${z}`,
      kernel: mtpInputKernel,
      operands: {
        e: random([T, D], x, i),
        h: random([T, D], "f32", i + 5, 0.5),
        eGain: random([D], "f32", i + 10, 1),
        hGain: random([D], "f32", i + 15, 1),
        z: wanted([T, 2 * D], z),
        rstd: wanted([T, 2], "f32"),
      },
      params: { T, D, eps: 1e-6 },
      tolerance: { z, rstd: "f32" },
    },
    {
      name: `[${T}, ${D}] e ${x}, h f32, dz ${z}`,
      kernel: mtpInputBackwardKernel,
      operands: {
        dz: random([T, 2 * D], z, i + 20),
        e: random([T, D], x, i),
        h: random([T, D], "f32", i + 5, 0.5),
        eGain: random([D], "f32", i + 10, 1),
        hGain: random([D], "f32", i + 15, 1),
        rstd: scales([T, 2], i + 25),
        de: wanted([T, D], x),
        dh: wanted([T, D], "f32"),
        deGain: random([D], "f32", i + 30),
        dhGain: random([D], "f32", i + 35),
        workspace: wanted([Math.ceil(T / 64), 2 * D], "f32"),
      },
      params: { T, D },
      tolerance: { de: x, dh: "f32", deGain: "f32", dhGain: "f32" },
      scratch: ["workspace"],
    },
  ]),
);
