import { describe, expect, test } from "vitest";
import { type MoeProblem, moeAlone, moeInGroup } from "../../../test/support/expertGroup.ts";
import { nativeIsMissing } from "../../../test/support/native.ts";
import { tinyConfig } from "../../../test/support/tinyModel.ts";
import { type PrecisionName, precisions } from "../../model/index.ts";

const backends = ["reference" as const, ...(nativeIsMissing ? [] : ["native" as const])] as const;

function problem(ranks: number, precision: PrecisionName, changes: Partial<MoeProblem> = {}): MoeProblem {
  return { config: tinyConfig(), precision: precisions[precision], tokens: 13, ranks, ...changes };
}

async function expectSameBits(made: MoeProblem, backend: (typeof backends)[number]): Promise<void> {
  const [alone, group] = await Promise.all([
    moeAlone(made, { backend, threads: 1 }),
    moeInGroup(made, { backend, threads: 1 }),
  ]);
  for (const [rank, result] of group.results.entries()) {
    for (const [name, value] of Object.entries(result)) {
      // Thousands of hex digits side by side say less than the name.
      const own = alone[rank]![name as keyof typeof result];
      expect(JSON.stringify(value) === JSON.stringify(own), `rank ${rank}: ${name}`).toBe(true);
    }
  }
  expect(group.left).toEqual(group.left.map(() => 0));
}

describe.each(backends)("a MoE layer over ranks, %s", (backend) => {
  for (const precision of ["f32", "bf16", "fp8"] as const) {
    for (const ranks of [1, 2, 4]) {
      test(`gives one process's bits with experts on ${ranks} in ${precision}: answers, choices, all gradients`, async () => {
        await expectSameBits(problem(ranks, precision), backend);
      });
    }
  }
});
