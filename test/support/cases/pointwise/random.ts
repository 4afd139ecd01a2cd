/** Cases of the random numbers that weights begin with. */

import { randomNormalKernel } from "../../../../src/tensor/ops/random.ts";
import type { OpCase } from "../../opCase.ts";
import { DTYPES, wanted } from "../operands.ts";

/** Bit for bit: both sides compute in doubles, in the same order. */
export const randomCases: readonly OpCase[] = DTYPES.map((dtype) => ({
  name: `9001 numbers in ${dtype}, seed and stream beyond 32 bits`,
  kernel: randomNormalKernel,
  operands: { y: wanted([9001], dtype) },
  params: { n: 9001, std: 0.02, seed: 2 ** 40 + 3, stream: 2 ** 33 + 1 },
  tolerance: "exact",
}));
