/** Every kernel of the project, by family: what tests, benches and `doctor` walk through. */
import type { Kernel } from "../kernel.ts";
import { combineKernels } from "./combine.ts";
import { dispatchKernels } from "./dispatch.ts";
import { elementwiseKernels } from "./elementwise.ts";
import { groupedLinearKernels } from "./groupedLinear.ts";
import { linearKernels } from "./linear.ts";
import { packWeightKernel } from "./packWeight.ts";
import { randomKernels } from "./random.ts";
import { routeKernels } from "./route.ts";
import { routerBiasKernels } from "./routerBias.ts";
import { sequenceBalanceKernels } from "./sequenceBalance.ts";

export const allKernels: readonly Kernel[] = [
  packWeightKernel,
  ...linearKernels,
  ...groupedLinearKernels,
  ...elementwiseKernels,
  ...randomKernels,
  ...routeKernels,
  ...sequenceBalanceKernels,
  ...dispatchKernels,
  ...combineKernels,
  ...routerBiasKernels,
];
