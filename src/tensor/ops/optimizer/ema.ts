/** The running average of weights, for early estimates of what learning-rate decay will bring. */
import { defineKernel, type Kernel } from "../../kernel.ts";
import { requireShape } from "../../shape.ts";
import type { Tensor } from "../../tensor.ts";

export const emaKernel: Kernel = defineKernel({
  name: "ema",
  operands: { ema: "inout", w: "in" },
  params: ["n", "decay"],
  reference({ ema, w }, { n, decay }) {
    // A step towards w: weights that stand still are a fixed point exactly.
    for (let i = 0; i < n; i++) ema[i] = ema[i]! + (1 - decay) * (w[i]! - ema[i]!);
  },
  flops: ({ n }) => 3 * n,
});

/**
 * average = decay * average + (1 - decay) * w, in place.
 *
 * Source: DeepSeek-V3 report, section 3.2.3.
 *
 * @param decay  0 copies the weights, 1 leaves the average as it is
 * @throws       {ShapeError} if the shapes differ
 */
export function ema(average: Tensor, w: Tensor, decay: number): void {
  requireShape(average, w.shape, "ema: average");
  w.device.run(emaKernel, { ema: average, w }, { n: w.size, decay });
}

export const emaKernels: readonly Kernel[] = [emaKernel];
