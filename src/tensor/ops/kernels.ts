/** Every kernel of the project, by family: what tests, benches and `doctor` walk through. */
import type { Kernel } from "../kernel.ts";
import { addRmsNormKernels } from "./addRmsNorm.ts";
import { combineKernels } from "./combine.ts";
import { dispatchKernels } from "./dispatch.ts";
import { elementwiseKernels } from "./elementwise.ts";
import { embeddingKernels } from "./embedding.ts";
import { groupedLinearKernels } from "./groupedLinear.ts";
import { latentKvKernels } from "./latentKv.ts";
import { linearKernels } from "./linear.ts";
import { mtpInputKernels } from "./mtpInput.ts";
import { packWeightKernel } from "./packWeight.ts";
import { randomKernels } from "./random.ts";
import { ropeKernels } from "./rope.ts";
import { routeKernels } from "./route.ts";
import { routerBiasKernels } from "./routerBias.ts";
import { sequenceBalanceKernels } from "./sequenceBalance.ts";
import { swigluKernels } from "./swiglu.ts";

export const allKernels: readonly Kernel[] = [
  packWeightKernel,
  ...linearKernels,
  ...groupedLinearKernels,
  ...elementwiseKernels,
  ...addRmsNormKernels,
  ...embeddingKernels,
  ...latentKvKernels,
  ...mtpInputKernels,
  ...ropeKernels,
  ...swigluKernels,
  ...randomKernels,
  ...routeKernels,
  ...sequenceBalanceKernels,
  ...dispatchKernels,
  ...combineKernels,
  ...routerBiasKernels,
];
