import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { makeRandom } from "../../test/support/random.ts";
import { ConfigError } from "../base/index.ts";
import { QueueDevice, ReferenceBackend, route } from "../tensor/index.ts";
import {
  chosenBy,
  type DispatchTraffic,
  dispatchTraffic,
  type ExpertChoices,
  type ExpertLayout,
  firstHop,
  secondHop,
} from "./twoHop.ts";

/** The report's layout: 256 experts on 64 ranks of 8 nodes, one expert group on each node. */
const v3: ExpertLayout = { experts: 256, ranks: 64, ranksPerNode: 8 };

/** Different experts for every token, each set as likely as any other. */
function uniformChoices(tokens: number, experts: number, topK: number, seed: number): ExpertChoices {
  const random = makeRandom(seed);
  const ids: number[] = [];
  for (let token = 0; token < tokens; token++) {
    const left = Array.from({ length: experts }, (_, expert) => expert);
    for (let k = 0; k < topK; k++) ids.push(left.splice(Math.floor(random() * left.length), 1)[0]!);
  }
  return { ids, topK };
}

/** Counted with sets, a token at a time, without hops. */
function countedBySets(
  { experts, ranks, ranksPerNode }: ExpertLayout,
  rank: number,
  { ids, topK }: ExpertChoices,
) {
  const nodeOf = (one: number) => Math.floor(one / ranksPerNode);
  const sum = { interNode: 0, intraNode: 0, nodesReached: 0, ranksReached: 0, interNodeDirect: 0 };
  const tokens = ids.length / topK;
  for (let token = 0; token < tokens; token++) {
    const chosen = Array.from({ length: topK }, (_, k) => ids[token * topK + k]!);
    const targets = new Set(chosen.map((expert) => Math.floor((expert * ranks) / experts)));
    const nodes = new Set([...targets].map(nodeOf));
    const sameNumber = [...targets].filter((target) => target % ranksPerNode === rank % ranksPerNode);
    sum.nodesReached += nodes.size;
    sum.ranksReached += targets.size;
    sum.interNode += nodes.size - (nodes.has(nodeOf(rank)) ? 1 : 0);
    sum.intraNode += targets.size - sameNumber.length;
    sum.interNodeDirect += [...targets].filter((target) => nodeOf(target) !== nodeOf(rank)).length;
  }
  return { tokens, ...sum } satisfies DispatchTraffic;
}

const anyCase = fc
  .record({
    nodes: fc.integer({ min: 1, max: 4 }),
    ranksPerNode: fc.integer({ min: 1, max: 4 }),
    perRank: fc.integer({ min: 1, max: 4 }),
    tokens: fc.integer({ min: 0, max: 12 }),
    seed: fc.integer(),
  })
  .chain(({ nodes, ranksPerNode, perRank, tokens, seed }) => {
    const layout: ExpertLayout = {
      experts: nodes * ranksPerNode * perRank,
      ranks: nodes * ranksPerNode,
      ranksPerNode,
    };
    return fc
      .record({
        rank: fc.integer({ min: 0, max: layout.ranks - 1 }),
        topK: fc.integer({ min: 1, max: Math.min(8, layout.experts) }),
      })
      .map(({ rank, topK }) => ({
        layout,
        rank,
        choices: uniformChoices(tokens, layout.experts, topK, seed),
      }));
  });

describe("two hops", () => {
  test("bring every token once to every rank that has an expert of it, and nowhere else", () => {
    fc.assert(
      fc.property(anyCase, ({ layout, rank, choices }) => {
        const arrived = firstHop(layout, rank, choices).flatMap((tokens, via) =>
          secondHop(layout, via, chosenBy(tokens, choices)).flatMap((handed, target) =>
            handed.map((row) => `${tokens[row]} at ${target}`),
          ),
        );
        const wanted = Array.from(choices.ids, (expert, index) => {
          const target = Math.floor((expert * layout.ranks) / layout.experts);
          return `${Math.floor(index / choices.topK)} at ${target}`;
        });
        expect(arrived.toSorted()).toEqual([...new Set(wanted)].toSorted());
      }),
      { numRuns: 1000 },
    );
  });

  test("cross between nodes only to the rank with the sender's number, and then stay on the node", () => {
    fc.assert(
      fc.property(anyCase, ({ layout, rank, choices }) => {
        for (const [via, tokens] of firstHop(layout, rank, choices).entries()) {
          if (tokens.length === 0) continue;
          expect(via % layout.ranksPerNode).toBe(rank % layout.ranksPerNode);
          expect(tokens).toEqual([...new Set(tokens)].sort((a, b) => a - b));
          for (const [target, handed] of secondHop(layout, via, chosenBy(tokens, choices)).entries()) {
            if (handed.length > 0) {
              expect(Math.floor(target / layout.ranksPerNode)).toBe(Math.floor(via / layout.ranksPerNode));
            }
          }
        }
      }),
      { numRuns: 300 },
    );
  });

  test("on two nodes of two ranks go so", () => {
    const layout: ExpertLayout = { experts: 8, ranks: 4, ranksPerNode: 2 };
    // From rank 1. Token 0: experts 2, 3 (rank 1); token 1: 4, 7 (ranks 2, 3); token 2: 0, 6 (ranks 0, 3).
    const choices: ExpertChoices = { ids: [2, 3, 4, 7, 0, 6], topK: 2 };
    expect(firstHop(layout, 1, choices)).toEqual([[], [0, 2], [], [1, 2]]);
    expect(secondHop(layout, 1, chosenBy([0, 2], choices))).toEqual([[1], [0], [], []]);
    expect(secondHop(layout, 3, chosenBy([1, 2], choices))).toEqual([[], [], [0], [0, 1]]);
    expect(dispatchTraffic(layout, 1, choices)).toEqual({
      tokens: 3,
      interNode: 2,
      intraNode: 2,
      nodesReached: 4,
      ranksReached: 5,
      interNodeDirect: 3,
    });
  });
});

describe("dispatchTraffic", () => {
  test("equals a count by sets", () => {
    fc.assert(
      fc.property(anyCase, ({ layout, rank, choices }) => {
        expect(dispatchTraffic(layout, rank, choices)).toEqual(countedBySets(layout, rank, choices));
      }),
      { numRuns: 1000 },
    );
  });

  test("of uniform choices without a group limit has the hypergeometric means", () => {
    const tokens = 20_000;
    const { nodesReached, ranksReached, interNode, intraNode } = dispatchTraffic(
      v3,
      11,
      uniformChoices(tokens, 256, 8, 7),
    );
    const nodes = 8 * (1 - missAll(256, 32, 8));
    const ranks = 64 * (1 - missAll(256, 4, 8));
    expect(nodesReached / tokens).toBeCloseTo(nodes, 1);
    expect(ranksReached / tokens).toBeCloseTo(ranks, 1);
    // One node in eight is the sender's, one rank in eight has its number.
    expect(Math.abs(interNode / tokens - (7 / 8) * nodes)).toBeLessThan(0.03);
    expect(Math.abs(intraNode / tokens - (7 / 8) * ranks)).toBeLessThan(0.03);
  });

  test.each([
    { ...v3, ranks: 60 },
    { ...v3, ranksPerNode: 7 },
    { ...v3, experts: 0 },
  ])("refuses %o", (layout) => {
    expect(() => dispatchTraffic(layout, 0, { ids: [0, 1], topK: 2 })).toThrow(ConfigError);
  });

  test("refuses choices that cannot be", () => {
    expect(() => dispatchTraffic(v3, 0, { ids: [0, 256], topK: 2 })).toThrow(/token 0 chose expert 256/);
    expect(() => dispatchTraffic(v3, 0, { ids: [0, 1, -1], topK: 1 })).toThrow(/token 2 chose expert -1/);
    expect(() => dispatchTraffic(v3, 0, { ids: [0, 1, 2], topK: 2 })).toThrow(/3 choices are no rows of 2/);
    expect(() => firstHop(v3, 64, { ids: [0, 1], topK: 2 })).toThrow(/there is no rank 64/);
  });
});

describe("V3's router", () => {
  const device = new QueueDevice(new ReferenceBackend(), 2 ** 26);
  afterAll(() => device.dispose());

  test("sends a token to at most 4 nodes; uniform scores reach 3.95 nodes and 7.49 ranks", async () => {
    const tokens = 8192;
    const random = makeRandom(3);
    const uniform = () => 1e-6 + (1 - 2e-6) * random();
    using _scope = device.scope();
    const logits = Float64Array.from({ length: tokens * 256 }, () => {
      const affinity = uniform();
      return Math.log(affinity / (1 - affinity));
    });
    const bias = device.from(new Float32Array(256), [256], "f32");
    const options = { topK: 8, groups: 8, topkGroup: 4, scale: 2.5, normalise: true };
    const ids = await route(device.from(logits, [tokens, 256], "f32"), bias, options).expertIds.read();

    const nodesOfEach = Array.from({ length: 1000 }, (_, token) => {
      const one: ExpertChoices = { ids: ids.slice(token * 8, token * 8 + 8), topK: 8 };
      return dispatchTraffic(v3, 5, one).nodesReached;
    });
    expect(Math.max(...nodesOfEach)).toBe(4);

    const { nodesReached, ranksReached, interNode, interNodeDirect } = dispatchTraffic(v3, 5, {
      ids,
      topK: 8,
    });
    expect(Math.abs(nodesReached / tokens - 3.95)).toBeLessThan(0.01);
    expect(Math.abs(ranksReached / tokens - 7.49)).toBeLessThan(0.01);
    // The point of the first hop: nearly half of the copies need not cross.
    expect(interNode / interNodeDirect).toBeLessThan(0.54);
  });
});

/** The chance that none of `topK` different experts of `all` is among `some`. */
function missAll(all: number, some: number, topK: number): number {
  let chance = 1;
  for (let k = 0; k < topK; k++) chance *= (all - some - k) / (all - k);
  return chance;
}
