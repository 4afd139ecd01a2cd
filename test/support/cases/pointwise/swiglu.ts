/** Cases of SwiGLU where its sigmoids saturate, each storage dtype on each operand. */

import { swigluBackwardKernel, swigluKernel } from "../../../../src/tensor/ops/swiglu.ts";
import type { CaseOperand, OpCase } from "../../opCase.ts";
import { dtypePairs, type Float, random, wanted } from "../operands.ts";

export const swigluCases: readonly OpCase[] = [
  { R: 1, F: 1 },
  { R: 7, F: 40 },
  { R: 300, F: 129 },
].flatMap(({ R, F }, i) =>
  dtypePairs.flatMap(([x, y]): OpCase[] => [
    {
      name: `[${R}, ${2 * F}] ${x} to ${y}`,
      kernel: swigluKernel,
      operands: { x: wide([R, 2 * F], x, i), y: wanted([R, F], y) },
      params: { R, F },
      tolerance: y,
    },
    {
      name: `[${R}, ${2 * F}] ${x}, dy ${y}`,
      kernel: swigluBackwardKernel,
      operands: { dy: random([R, F], y, i + 5), x: wide([R, 2 * F], x, i), dx: wanted([R, 2 * F], x) },
      params: { R, F },
      tolerance: x,
    },
  ]),
);

/** Wide enough that sigmoids saturate on both sides. */
function wide(shape: readonly number[], dtype: Float, seed: number): CaseOperand {
  const operand = random(shape, dtype, seed);
  return { ...operand, values: Array.from(operand.values ?? [], (v) => 8 * v ** 3) };
}
