/** Every kernel of the project, by family: what tests, benches and `doctor` walk through. */
import type { Kernel } from "../kernel.ts";
import { absorbedAttentionKernels } from "./absorbedAttention.ts";
import { addRmsNormKernels } from "./addRmsNorm.ts";
import { attentionKernels } from "./attention.ts";
import { elementwiseKernels } from "./elementwise.ts";
import { embeddingKernels } from "./embedding.ts";
import { fp8GradWeightKernels } from "./fp8/fp8GradWeight.ts";
import { fp8MatmulKernels } from "./fp8/fp8Matmul.ts";
import { quantizeKernels } from "./fp8/quantizeKernels.ts";
import { latentKvKernels } from "./latentKv.ts";
import { linearCrossEntropyKernels } from "./linearCrossEntropy.ts";
import { matmulKernels } from "./matmul.ts";
import { combineKernels } from "./moe/combine.ts";
import { copyKernels } from "./moe/copies.ts";
import { dispatchKernels } from "./moe/dispatch.ts";
import { groupedMatmulKernels } from "./moe/groupedMatmul.ts";
import { mixtureKernels } from "./moe/mixture.ts";
import { routeKernels } from "./moe/route.ts";
import { routerBiasKernels } from "./moe/routerBias.ts";
import { sequenceBalanceKernels } from "./moe/sequenceBalance.ts";
import { mtpInputKernels } from "./mtpInput.ts";
import { adamwKernels } from "./optimizer/adamw.ts";
import { emaKernels } from "./optimizer/ema.ts";
import { gradNormKernels } from "./optimizer/gradNorm.ts";
import { muonKernels } from "./optimizer/muon.ts";
import { packWeightKernel } from "./packWeight.ts";
import { randomKernels } from "./random.ts";
import { reduceKernels } from "./reduce.ts";
import { ropeKernels } from "./rope.ts";
import { sampleKernels } from "./sample.ts";
import { swigluKernels } from "./swiglu.ts";

export const allKernels: readonly Kernel[] = [
  packWeightKernel,
  ...matmulKernels,
  ...groupedMatmulKernels,
  ...quantizeKernels,
  ...fp8MatmulKernels,
  ...fp8GradWeightKernels,
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
  ...copyKernels,
  ...combineKernels,
  ...mixtureKernels,
  ...routerBiasKernels,
  ...linearCrossEntropyKernels,
  ...reduceKernels,
  ...gradNormKernels,
  ...adamwKernels,
  ...muonKernels,
  ...emaKernels,
  ...sampleKernels,
];
