import { describe, expect, test } from "vitest";
import {
  type GroupResult,
  type MoeProblem,
  moeAlone,
  moeInGroup,
} from "../../../test/support/expertGroup.ts";
import { nativeIsMissing } from "../../../test/support/native.ts";
import { tinyConfig } from "../../../test/support/tinyModel.ts";
import { ConfigError } from "../../base/index.ts";
import { type PrecisionName, precisions } from "../../model/index.ts";
import { chosenBy, type ExpertLayout, firstHop, secondHop } from "../twoHop.ts";

const backends = ["reference" as const, ...(nativeIsMissing ? [] : ["native" as const])];
type Backend = (typeof backends)[number];

/** 16 experts in 4 groups, of which a token visits 2 with 4 experts: several rows of a token behind one rank. */
const grouped = tinyConfig({ nRoutedExperts: 16, nGroup: 4, topkGroup: 2, numExpertsPerTok: 4 });

function problem(ranks: number, precision: PrecisionName, changes: Partial<MoeProblem> = {}): MoeProblem {
  return { config: grouped, precision: precisions[precision], tokens: 13, ranks, ...changes };
}

async function expectSameBits(
  made: MoeProblem,
  backend: Backend,
  ranksPerNode: number | null = null,
): Promise<GroupResult> {
  const [alone, group] = await Promise.all([
    moeAlone(made, { backend, threads: 1 }),
    moeInGroup(made, { backend, threads: 1 }, ranksPerNode),
  ]);
  for (const [rank, result] of group.results.entries()) {
    for (const [name, value] of Object.entries(result)) {
      // Thousands of hex digits side by side say less than the name.
      const own = alone[rank]![name as keyof typeof result];
      expect(JSON.stringify(value) === JSON.stringify(own), `rank ${rank}: ${name}`).toBe(true);
    }
  }
  expect(group.left).toEqual(group.left.map(() => 0));
  return group;
}

/** Sends every token to the experts that are named, if they lie in groups that a token may visit together. */
function biasFor(experts: readonly number[]): number[] {
  return Array.from({ length: grouped.nRoutedExperts }, (_, e) => (experts.includes(e) ? 100 : 0));
}

describe.each(backends)("a MoE layer over ranks, %s", (backend) => {
  for (const precision of ["f32", "bf16", "fp8"] as const) {
    for (const ranks of [1, 2, 4]) {
      test(`has one process's bits with experts on ${ranks} in ${precision}: answers, choices, all gradients`, async () => {
        await expectSameBits(problem(ranks, precision), backend);
      });
    }

    test(`has one process's bits over 2 nodes of 2 ranks in ${precision}`, async () => {
      await expectSameBits(problem(4, precision), backend, 2);
    });
  }

  test("has one process's bits where rows are made again on the way back, and without a shared expert", async () => {
    await expectSameBits(problem(2, "bf16", { recomputes: true }), backend);
    const config = { ...grouped, nSharedExperts: 0 };
    await expectSameBits(problem(2, "bf16", { config }), backend);
    await expectSameBits(problem(4, "bf16", { config, recomputes: true }), backend, 2);
  });

  test("has one process's bits where all tokens go to the experts of one rank, and the others have none", async () => {
    const bias = biasFor([4, 5, 6, 7]);
    const straight = await expectSameBits(problem(4, "bf16", { bias }), backend);
    expect(straight.results.every(({ expertIds }) => expertIds.every((id) => id >= 4 && id < 8))).toBe(true);
    expect(straight.sent).toEqual([0, 1, 2, 3].map(() => [0, 13, 0, 0]));
    await expectSameBits(problem(4, "fp8", { bias }), backend);
    await expectSameBits(problem(4, "bf16", { bias }), backend, 2);
    await expectSameBits(problem(4, "fp8", { bias }), backend, 2);
  });

  test("has one process's bits where every token goes to one and the same expert", async () => {
    const config = { ...grouped, nGroup: 1, topkGroup: 1, numExpertsPerTok: 1 };
    const { results, sent } = await expectSameBits(
      problem(4, "bf16", { config, bias: biasFor([9]) }),
      backend,
    );
    expect(new Set(results.flatMap(({ expertIds }) => expertIds))).toEqual(new Set([9]));
    expect(sent).toEqual([0, 1, 2, 3].map(() => [0, 0, 13, 0]));
  });

  test("has one process's bits where the room behind the rows holds NaN", async () => {
    for (const precision of ["bf16", "fp8"] as const) {
      const spoilt = problem(4, precision, { poisoned: true });
      await expectSameBits(spoilt, backend);
      await expectSameBits(spoilt, backend, 2);
      await expectSameBits({ ...spoilt, bias: biasFor([4, 5, 6, 7]), recomputes: true }, backend);
    }
  });

  test("has one process's bits with a group on each of four nodes of one rank, and with one node", async () => {
    await expectSameBits(problem(4, "bf16"), backend, 1);
    await expectSameBits(problem(4, "bf16"), backend, 4);
  });
});

describe("copies of tokens", () => {
  const layout: ExpertLayout = { experts: 16, ranks: 4, ranksPerNode: 2 };
  const topK = grouped.numExpertsPerTok;

  test("cross once to each rank that has one of their experts", async () => {
    const { results, sent } = await moeInGroup(problem(4, "f32", { tokens: 40 }), { backend: "reference" });
    for (const [rank, { expertIds }] of results.entries()) {
      const tokens = Array.from({ length: 40 }, (_, t) => expertIds.slice(t * topK, (t + 1) * topK));
      const wanted = [0, 1, 2, 3].map(
        (owner) => tokens.filter((ids) => ids.some((id) => Math.floor(id / 4) === owner)).length,
      );
      expect(sent[rank]).toEqual(wanted);
    }
  });

  test("cross in two hops as the plan of two hops says, to as many nodes as a token may visit groups at most", async () => {
    const { results, sent } = await moeInGroup(
      problem(4, "f32", { tokens: 40 }),
      { backend: "reference" },
      2,
    );
    for (const rank of [0, 1, 2, 3]) {
      const own = { ids: results[rank]!.expertIds, topK };
      const across = firstHop(layout, rank, own);
      const [number, node] = [rank % 2, Math.floor(rank / 2)];
      const handed = [number, 2 + number].map((sender) => {
        const choices = { ids: results[sender]!.expertIds, topK };
        const tokens = firstHop(layout, sender, choices)[rank]!;
        return secondHop(layout, rank, chosenBy(tokens, choices));
      });
      expect(sent[rank]).toEqual([
        ...[number, 2 + number].map((via) => across[via]!.length),
        ...[2 * node, 2 * node + 1].map((target) =>
          handed.reduce((sum, sends) => sum + sends[target]!.length, 0),
        ),
      ]);
      const copies = sent[rank]!.slice(0, 2).reduce((sum, count) => sum + count, 0);
      expect(copies).toBeGreaterThan(40);
      expect(copies).toBeLessThanOrEqual(40 * grouped.topkGroup);
    }
  });
});

test("groups of experts that do not lie in one node are refused, and nodes of unequal size", async () => {
  const config = { ...grouped, nGroup: 1, topkGroup: 1 };
  const cut = moeInGroup(problem(4, "f32", { config }), { backend: "reference" }, 2);
  await expect(cut).rejects.toThrow("16 experts in groups of 16 do not lie on 2 nodes");
  await expect(cut).rejects.toBeInstanceOf(ConfigError);
  const uneven = moeInGroup(problem(4, "f32"), { backend: "reference" }, 3);
  await expect(uneven).rejects.toThrow("4 ranks share the experts, 3 of them on a node");
});
