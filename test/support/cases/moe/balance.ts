/** Cases of what keeps experts evenly loaded: the loss per sequence, ragged ones and empty ones, and the router's bias. */

import { updateRouterBiasKernel } from "../../../../src/tensor/ops/moe/routerBias.ts";
import {
  sequenceBalanceBackwardKernel,
  sequenceBalanceKernel,
} from "../../../../src/tensor/ops/moe/sequenceBalance.ts";
import type { OpCase } from "../../opCase.ts";
import { integers } from "../../random.ts";
import { given, random, whole } from "../operands.ts";
import { affinities } from "./routed.ts";

function balanceCases(name: string, T: number, E: number, K: number, offsets: readonly number[]): OpCase[] {
  const S = offsets.length - 1;
  const affinity = given([T, E], affinities(T, E, 31));
  const seqOffsets = whole([S + 1], offsets);
  const params = { T, E, K, S, alpha: 0.125 };
  return [
    {
      name,
      kernel: sequenceBalanceKernel,
      operands: {
        affinity,
        seqOffsets,
        load: { shape: [S, E], dtype: "f32" },
        loss: { shape: [1], dtype: "f32" },
      },
      params,
      tolerance: { load: "exact", loss: "f32" },
    },
    {
      name,
      kernel: sequenceBalanceBackwardKernel,
      operands: {
        affinity,
        seqOffsets,
        load: given([S, E], integers(S * E, T + 1, 32)),
        dAffinity: { shape: [T, E], dtype: "f32" },
      },
      params,
      tolerance: "f32",
    },
  ];
}

export const sequenceBalanceCases: readonly OpCase[] = [
  ...balanceCases("ragged sequences, two of them empty", 700, 16, 4, [0, 63, 64, 129, 130, 400, 700, 700]),
  ...balanceCases("one sequence of 100 experts", 130, 100, 8, [0, 130]),
  ...balanceCases("tokens before and after all sequences", 10, 5, 2, [2, 6, 8]),
  ...balanceCases("no token in any sequence", 3, 4, 2, [0, 0, 0]),
  ...balanceCases("one token, every expert chosen", 1, 3, 3, [0, 1]),
];

function biasCase(name: string, load: readonly number[], gamma: number): OpCase {
  const E = load.length;
  return {
    name,
    kernel: updateRouterBiasKernel,
    operands: { bias: random([E], "f32", 71), load: whole([E], load) },
    params: { E, gamma },
    tolerance: "f32",
  };
}

export const biasCases: readonly OpCase[] = [
  biasCase("busy, idle and even experts", [10, 2, 6, 4, 8], 0.001),
  biasCase("a mean that is no binary fraction", [1, 2, 3], 0.01),
  biasCase("a frozen bias", [9, 0], 0),
  biasCase("loads near the limit", [2 ** 31 - 1, 2 ** 31 - 1, 0], 0.001),
];
