/**
 * SwiGLU's gate: silu(gate) * up, where one matrix has made gate and up side by side.
 *
 * R rows, F channels of the hidden layer. The backward pass computes the sigmoid anew from x: keeping it
 * would cost as much memory as x itself.
 *
 * Source: Shazeer, "GLU Variants Improve Transformer" (2020), eq. (6); in V3's released code W2(silu(W1 x) * W3 x).
 */
import { ShapeError } from "../../base/index.ts";
import type { Dtype } from "../dtype.ts";
import { defineKernel, type Kernel } from "../kernel.ts";
import type { Tensor } from "../tensor.ts";

export const swigluKernel: Kernel = defineKernel({
  name: "swiglu",
  operands: { x: "in", y: "out", count: "in? i32" },
  params: ["R", "F"],
  reference({ x, y, count }, { R, F }) {
    for (let r = 0; r < (count?.[0] ?? R); r++) {
      for (let i = 0; i < F; i++) {
        const gate = x[r * 2 * F + i]!;
        const up = x[r * 2 * F + F + i]!;
        y[r * F + i] = (gate / (1 + Math.exp(-gate))) * up;
      }
    }
  },
  flops: ({ R, F }) => 5 * R * F,
});

export const swigluBackwardKernel: Kernel = defineKernel({
  name: "swigluBackward",
  operands: { dy: "in", x: "in", dx: "out", count: "in? i32" },
  params: ["R", "F"],
  reference({ dy, x, dx, count }, { R, F }) {
    for (let r = 0; r < (count?.[0] ?? R); r++) {
      for (let i = 0; i < F; i++) {
        const [gateAt, upAt] = [r * 2 * F + i, r * 2 * F + F + i];
        const gate = x[gateAt]!;
        const sigmoid = 1 / (1 + Math.exp(-gate));
        const g = dy[r * F + i]!;
        // silu' = sigmoid + gate sigmoid (1 - sigmoid)
        dx[gateAt] = g * x[upAt]! * (sigmoid * (1 + gate * (1 - sigmoid)));
        dx[upAt] = g * (gate * sigmoid);
      }
    }
  },
  flops: ({ R, F }) => 12 * R * F,
});

/**
 * silu(gate) * up.
 *
 * @param x      [R, 2F]: F gate channels, then F up channels
 * @param dtype  of the result
 * @param count  [1] i32: how many of the R rows there are; null for all
 * @returns      [R, F]
 * @throws       {ShapeError} if x has an odd number of channels
 */
export function swiglu(x: Tensor, dtype: Dtype = x.dtype, count: Tensor | null = null): Tensor {
  const width = x.dim(-1);
  if (width % 2 !== 0) {
    throw new ShapeError(`swiglu: x is [${x.shape.join(", ")}], its last dimension must be even`, {
      why: "the first half of the channels is the gate, the second half what it gates",
      fix: "stack the gate's and the up projection's outputs: [gate; up]",
      fields: { x: x.shape },
    });
  }
  const [R, F] = [x.size / width, width / 2];
  const { device } = x;
  const y = device.empty([R, F], dtype);
  const make = (): void => device.run(swigluKernel, { x, y, count }, { R, F });
  make();
  device.tape?.record({
    op: "swiglu",
    inputs: [x],
    outputs: [y],
    saved: [x, count],
    remakes: [{ outputs: [y], reads: [x, count], run: make }],
    inputGrad(dy) {
      if (dy === null) return [null];
      const dx = device.empty(x.shape, x.dtype);
      device.run(swigluBackwardKernel, { dy, x, dx, count }, { R, F });
      return [dx];
    },
  });
  return y;
}

export const swigluKernels: readonly Kernel[] = [swigluKernel, swigluBackwardKernel];
