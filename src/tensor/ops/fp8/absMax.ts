/** The greatest magnitude of a whole tensor: what scaling tensor by tensor would divide by. For ablations. */
import { defineKernel, type Kernel } from "../../kernel.ts";
import type { Tensor } from "../../tensor.ts";

export const absMaxKernel: Kernel = defineKernel({
  name: "absMax",
  operands: { x: "in", y: "out" },
  params: ["n"],
  reference({ x, y }, { n }) {
    let greatest = 0;
    for (let i = 0; i < n; i++) greatest = Math.max(greatest, Math.abs(x[i]!));
    y[0] = Number.isFinite(greatest) ? greatest : Number.NaN;
  },
});

/**
 * max |x|, 0 for no numbers.
 *
 * @param x  any shape, f32 or bf16
 * @returns  [1] f32; NaN if any number is NaN or infinite
 */
export function absMax(x: Tensor): Tensor {
  const y = x.device.empty([1], "f32");
  x.device.run(absMaxKernel, { x, y }, { n: x.size });
  return y;
}
