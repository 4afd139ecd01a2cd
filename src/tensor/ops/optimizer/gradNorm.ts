/**
 * The global norm of all gradients: what clipping looks at.
 *
 * Native sums run over fixed chunks in index order, one partial per parameter in the parameters' order: this number
 * scales every weight's step, so one bit of difference here would be seen in all of them.
 */
import { invariant } from "../../../base/index.ts";
import { defineKernel, type Kernel } from "../../kernel.ts";
import type { Tensor } from "../../tensor.ts";
import { fill } from "../elementwise.ts";
import { statisticsDtype } from "../norm.ts";

export const sumSquaresKernel: Kernel = defineKernel({
  name: "sumSquares",
  operands: { x: "in", partial: "out" },
  params: ["n"],
  reference({ x, partial }, { n }) {
    let sum = 0;
    for (let i = 0; i < n; i++) sum += x[i]! * x[i]!;
    partial[0] = sum;
  },
  flops: ({ n }) => 2 * n,
});

export const gradNormKernel: Kernel = defineKernel({
  name: "gradNorm",
  operands: { partials: "in", norm: "out" },
  params: ["P"],
  reference({ partials, norm }, { P }) {
    let sum = 0;
    for (let i = 0; i < P; i++) sum += partials[i]!;
    norm[0] = Math.sqrt(sum);
  },
});

/** Elements from one partial to the next: an operand begins at a multiple of 64 bytes. Those between are zero. */
const STRIDE = 16;

/**
 * sqrt of the sum of squares of all elements.
 *
 * @param grads  any shapes, one dtype of f32, bf16 (or f64)
 * @returns      [1] f32 (or f64); NaN and infinity come through
 */
export function globalGradNorm(grads: readonly Tensor[]): Tensor {
  const [first] = grads;
  invariant(first !== undefined, "a gradient norm needs at least one gradient");
  const { device } = first;
  const dtype = statisticsDtype(first);
  using partials = device.temporary([grads.length, STRIDE], dtype);
  fill(partials, 0);
  grads.forEach((x, i) => {
    device.run(sumSquaresKernel, { x, partial: partials.rows(i, i + 1) }, { n: x.size });
  });
  const norm = device.empty([1], dtype);
  device.run(gradNormKernel, { partials, norm }, { P: partials.size });
  return norm;
}

export const gradNormKernels: readonly Kernel[] = [sumSquaresKernel, gradNormKernel];
