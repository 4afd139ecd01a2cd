/**
 * The global norm of all gradients: what clipping looks at.
 *
 * Native sums run over fixed chunks in index order, one partial per parameter in the parameters' order: this number
 * scales every weight's step, so one bit of difference here would be seen in all of them.
 */
import { invariant } from "../../../base/index.ts";
import type { Dtype } from "../../dtype.ts";
import { defineKernel, type Kernel } from "../../kernel.ts";
import type { Device, Tensor } from "../../tensor.ts";
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

/** Room for the sum of squares of each of `count` gradients, all zero. */
export function squarePartials(device: Device, count: number, dtype: Dtype): Tensor {
  const partials = device.empty([count, STRIDE], dtype);
  fill(partials, 0);
  return partials;
}

/**
 * Puts the sum of squares of each gradient at its place; where there is null, the place stays as it is.
 *
 * @param grads  any shapes, one dtype of f32, bf16 (or f64)
 */
export function partialSquares(grads: readonly (Tensor | null)[], partials: Tensor): void {
  for (const [i, x] of grads.entries()) {
    if (x === null) continue;
    x.device.run(sumSquaresKernel, { x, partial: partials.rows(i, i + 1) }, { n: x.size });
  }
}

/** sqrt of the sum of all partials, in index order, as [1]; NaN and infinity come through. */
export function normOfPartials(partials: Tensor): Tensor {
  const norm = partials.device.empty([1], partials.dtype);
  partials.device.run(gradNormKernel, { partials, norm }, { P: partials.size });
  return norm;
}

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
  using scope = device.scope();
  const partials = squarePartials(device, grads.length, statisticsDtype(first));
  partialSquares(grads, partials);
  return scope.keep(normOfPartials(partials));
}

export const gradNormKernels: readonly Kernel[] = [sumSquaresKernel, gradNormKernel];
