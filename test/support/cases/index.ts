/** Every case of every kernel. */
import type { OpCase } from "../opCase.ts";
import { attentionCases } from "./attention.ts";
import { fp8ProductCases } from "./fp8Products.ts";
import { groupedLinearCases } from "./grouped.ts";
import { linearCases } from "./linear.ts";
import { lossCases } from "./loss.ts";
import { moeCases } from "./moe/index.ts";
import { optimCases } from "./optim.ts";
import { pointwiseCases, randomCases } from "./pointwise/index.ts";
import { quantizeCases } from "./quantize.ts";
import { sampleCases } from "./sampling.ts";

export const allCases: readonly OpCase[] = [
  ...linearCases,
  ...quantizeCases,
  ...fp8ProductCases,
  ...groupedLinearCases,
  ...pointwiseCases,
  ...randomCases,
  ...attentionCases,
  ...moeCases,
  ...lossCases,
  ...optimCases,
  ...sampleCases,
];
