/**
 * Balance without an auxiliary loss: the bias that steers the choice of experts moves after each step.
 *
 * Source: DeepSeek-V3 report, section 2.1.2, below eq. (16).
 */
import type { Param } from "../../hostScalar.ts";
import { defineKernel, type Kernel } from "../../kernel.ts";
import { requireDtype, requireShape } from "../../shape.ts";
import type { Tensor } from "../../tensor.ts";

export const updateRouterBiasKernel: Kernel = defineKernel({
  name: "updateRouterBias",
  operands: { bias: "inout", load: "in i32" },
  params: ["E", "gamma"],
  reference({ bias, load }, { E, gamma }) {
    const total = load.reduce((sum, rows) => sum + rows, 0);
    // mean - load, times E: whole numbers, so that an even load is exactly even.
    for (let e = 0; e < E; e++) bias[e] = bias[e]! + gamma * Math.sign(total - E * load[e]!);
  },
});

/**
 * Moves the bias one step towards an even load: busy experts down, idle experts up.
 *
 * @param bias   [E] f32, changed in place
 * @param load   [E] i32, rows each expert got in this step, over the whole global batch
 * @param gamma  step size; 0 freezes the bias, which stays in use
 */
export function moveRouterBias(bias: Tensor, load: Tensor, gamma: Param): void {
  const E = bias.size;
  requireShape(bias, [E], "moveRouterBias: bias");
  requireDtype(load, ["i32"], "moveRouterBias: load");
  requireShape(load, [E], "moveRouterBias: load");
  bias.device.run(updateRouterBiasKernel, { bias, load }, { E, gamma });
}

export const routerBiasKernels: readonly Kernel[] = [updateRouterBiasKernel];
