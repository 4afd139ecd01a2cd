/** Cases of the embedding and of its gradient, where common tokens come often. */

import { embeddingGradKernel, embeddingKernel } from "../../../../src/tensor/ops/embedding.ts";
import type { CaseOperand, OpCase } from "../../opCase.ts";
import { integers } from "../../random.ts";
import { DTYPES, random, wanted, whole } from "../operands.ts";

/** Common tokens come often, as in text: squares of uniform numbers crowd the low ids. */
function textIds(T: number, V: number, seed: number): CaseOperand {
  return whole(
    [T],
    Array.from(integers(T, 1000, seed), (u) => Math.floor((u / 1000) ** 3 * V)),
  );
}

export const embeddingCases: readonly OpCase[] = [
  { T: 1, D: 1, V: 1 },
  { T: 50, D: 37, V: 20 },
  { T: 333, D: 64, V: 700 },
].flatMap(({ T, D, V }, i) =>
  DTYPES.flatMap((dtype): OpCase[] => [
    ...[0, 1].map(
      (round): OpCase => ({
        name: `${T} tokens of [${V}, ${D}] to ${dtype}, round ${round}`,
        kernel: embeddingKernel,
        operands: { ids: textIds(T, V, i), table: random([V, D], "f32", i), y: wanted([T, D], dtype) },
        params: { T, D, V, round },
        tolerance: "exact",
      }),
    ),
    {
      name: `${T} tokens into [${V}, ${D}], dy ${dtype}`,
      kernel: embeddingGradKernel,
      operands: {
        ids: textIds(T, V, i),
        dy: random([T, D], dtype, i + 5),
        dtable: random([V, D], "f32", i + 10),
        workspace: { shape: [T + V + 1], dtype: "i32" },
      },
      params: { T, D, V },
      tolerance: "f32",
      scratch: ["workspace"],
    },
  ]),
);
