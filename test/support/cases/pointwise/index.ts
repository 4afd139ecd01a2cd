/** Cases of the pointwise kernels. Random numbers have no equation to be held to, and a list of their own. */

import type { OpCase } from "../../opCase.ts";
import { elementwiseCases } from "./elementwise.ts";
import { embeddingCases } from "./embedding.ts";
import { mtpInputCases, rmsNormCases } from "./norms.ts";
import { latentKvCases, ropeCases } from "./rope.ts";
import { swigluCases } from "./swiglu.ts";

export { randomCases } from "./random.ts";

export const pointwiseCases: readonly OpCase[] = [
  ...elementwiseCases,
  ...rmsNormCases,
  ...swigluCases,
  ...ropeCases,
  ...latentKvCases,
  ...embeddingCases,
  ...mtpInputCases,
];
