/** Cases of the MoE kernels, from the router to the mixture of answers. */

import type { OpCase } from "../../opCase.ts";
import { biasCases, sequenceBalanceCases } from "./balance.ts";
import { combineCases } from "./combine.ts";
import { copyCases, dispatchCases } from "./dispatch.ts";
import { mixtureCases } from "./mixture.ts";
import { routerBackwardCases, routerCases } from "./router.ts";

export const moeCases: readonly OpCase[] = [
  ...copyCases,
  ...routerCases,
  ...routerBackwardCases,
  ...sequenceBalanceCases,
  ...dispatchCases,
  ...combineCases,
  ...mixtureCases,
  ...biasCases,
];
