/** Every kernel of the project, by family: what tests, benches and `doctor` walk through. */
import type { Kernel } from "../kernel.ts";
import { elementwiseKernels } from "./elementwise.ts";
import { groupedLinearKernels } from "./groupedLinear.ts";
import { linearKernels } from "./linear.ts";
import { packWeightKernel } from "./packWeight.ts";

export const allKernels: readonly Kernel[] = [
  packWeightKernel,
  ...linearKernels,
  ...groupedLinearKernels,
  ...elementwiseKernels,
];
