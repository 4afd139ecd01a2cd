/** Sums over whole tensors, for reports: losses, hits, and whether everything is finite. Not differentiable. */
import { defineKernel, type Kernel } from "../kernel.ts";
import { requireDtype, requireShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { statisticsDtype } from "./norm.ts";

export const reduceSumKernel: Kernel = defineKernel({
  name: "reduceSum",
  operands: { x: "in", y: "out" },
  params: ["n", "scale"],
  reference({ x, y }, { n, scale }) {
    let sum = 0;
    for (let i = 0; i < n; i++) sum += x[i]!;
    y[0] = scale * sum;
  },
  flops: ({ n }) => n,
});

export const countPositiveKernel: Kernel = defineKernel({
  name: "countPositive",
  operands: { x: "in i32", y: "out" },
  params: ["n"],
  reference({ x, y }, { n }) {
    let count = 0;
    for (let i = 0; i < n; i++) if (x[i]! > 0) count++;
    y[0] = count;
  },
});

/**
 * scale * sum of x.
 *
 * @param x  any shape, f32 (or f64)
 * @returns  [1] of x's dtype; NaN or infinite if any element is
 */
export function reduceSum(x: Tensor, scale: number): Tensor {
  requireDtype(x, ["f32", "f64"], "reduceSum: x");
  const y = x.device.empty([1], statisticsDtype(x));
  x.device.run(reduceSumKernel, { x, y }, { n: x.size, scale });
  return y;
}

/**
 * How many elements are greater than zero.
 *
 * @param x  [n] i32
 * @returns  [1] f32, exact up to 2^24
 */
export function countPositive(x: Tensor): Tensor {
  requireDtype(x, ["i32"], "countPositive: x");
  requireShape(x, [x.size], "countPositive: x");
  const y = x.device.empty([1], "f32");
  x.device.run(countPositiveKernel, { x, y }, { n: x.size });
  return y;
}

export const reduceKernels: readonly Kernel[] = [reduceSumKernel, countPositiveKernel];
