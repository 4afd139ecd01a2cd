/** Every kernel of the project, by family: what tests, benches and `doctor` walk through. */
import type { Kernel } from "../kernel.ts";
import { absorbedAttentionKernels } from "./absorbedAttention.ts";
import { adamwKernels } from "./adamw.ts";
import { addRmsNormKernels } from "./addRmsNorm.ts";
import { attentionKernels } from "./attention.ts";
import { combineKernels } from "./combine.ts";
import { dispatchKernels } from "./dispatch.ts";
import { elementwiseKernels } from "./elementwise.ts";
import { emaKernels } from "./ema.ts";
import { embeddingKernels } from "./embedding.ts";
import { gradNormKernels } from "./gradNorm.ts";
import { groupedLinearKernels } from "./groupedLinear.ts";
import { latentKvKernels } from "./latentKv.ts";
import { linearKernels } from "./linear.ts";
import { linearCrossEntropyKernels } from "./linearCrossEntropy.ts";
import { mtpInputKernels } from "./mtpInput.ts";
import { packWeightKernel } from "./packWeight.ts";
import { randomKernels } from "./random.ts";
import { reduceKernels } from "./reduce.ts";
import { ropeKernels } from "./rope.ts";
import { routeKernels } from "./route.ts";
import { routerBiasKernels } from "./routerBias.ts";
import { sampleKernels } from "./sample.ts";
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
  ...attentionKernels,
  ...absorbedAttentionKernels,
  ...routeKernels,
  ...sequenceBalanceKernels,
  ...dispatchKernels,
  ...combineKernels,
  ...routerBiasKernels,
  ...linearCrossEntropyKernels,
  ...reduceKernels,
  ...gradNormKernels,
  ...adamwKernels,
  ...emaKernels,
  ...sampleKernels,
];
