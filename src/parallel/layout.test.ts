import { describe, expect, test } from "vitest";
import { ConfigError } from "../base/index.ts";
import {
  type CutNumbers,
  checkExperts,
  checkLayout,
  type Layout,
  layoutText,
  parseLayout,
} from "./layout.ts";

function make(changes: Partial<Layout>): Layout {
  return { dp: 1, ep: 1, pp: 1, zero1: false, schedule: "dualpipe", ...changes };
}

/** 64 micro-batches, 4 layers. */
function numbers(gradientShards: number, numNextnPredictLayers: number = 1): CutNumbers {
  const model = { numHiddenLayers: 4, numNextnPredictLayers };
  return { gradientShards, batchRows: 64, microBatchRows: 1, model };
}

describe("parseLayout", () => {
  test("takes what it is not told for 1, in any order, with spaces", () => {
    expect(parseLayout("dp=4")).toEqual({ dp: 4, ep: 1, pp: 1 });
    expect(parseLayout("pp=2, ep=2 ,dp=4")).toEqual({ dp: 4, ep: 2, pp: 2 });
  });

  test("reads what layoutText writes", () => {
    const layout = make({ dp: 6, ep: 3, pp: 2 });
    expect({ ...parseLayout(layoutText(layout)), zero1: false, schedule: "dualpipe" }).toEqual(layout);
  });

  test.each(["", "dp", "dp=0", "dp=-1", "dp=1.5", "dp=2,dp=2", "tp=2", "dp=2;ep=2", "dp=99999999"])(
    "refuses %j with an example",
    (text) => {
      expect(() => parseLayout(text)).toThrow(ConfigError);
      expect(() => parseLayout(text)).toThrow(/is no layout[\s\S]*--layout dp=4/);
    },
  );
});

describe("checkLayout", () => {
  test("takes every number of ranks that leaves each 1, 2, 4, ... shards", () => {
    const legal = (gradientShards: number): number[] =>
      Array.from({ length: 12 }, (_, i) => i + 1).filter((dp) => {
        try {
          checkLayout(make({ dp }), dp, numbers(gradientShards));
          return true;
        } catch {
          return false;
        }
      });
    expect(legal(1)).toEqual([1]);
    expect(legal(8)).toEqual([1, 2, 4, 8]);
    expect(legal(6)).toEqual([3, 6]);
    expect(legal(12)).toEqual([3, 6, 12]);
  });

  test("takes pipelines of every schedule that have layers and micro-batches enough", () => {
    for (const schedule of ["1f1b", "zb"] as const)
      checkLayout(make({ dp: 2, pp: 3, schedule }), 6, numbers(2, 0));
    checkLayout(make({ dp: 4, pp: 4, zero1: true }), 16, numbers(8));
    checkLayout(make({ pp: 2, schedule: "dualpipev" }), 2, numbers(1));
    checkLayout(make({ dp: 4, ep: 2, pp: 2 }), 8, numbers(8));
  });

  test("takes experts that divide over a power of two of ranks, and nodes that hold whole groups of them", () => {
    const model = { nRoutedExperts: 24, nGroup: 4 };
    for (const ep of [1, 2, 4, 8]) checkExperts({ ep }, model);
    for (const ep of [3, 6, 16])
      expect(() => checkExperts({ ep }, model)).toThrow(`24 routed experts cannot be shared by ${ep} ranks`);
    for (const ranksPerNode of [2, 4, 8]) checkExperts({ ep: 8 }, model, ranksPerNode);
    expect(() => checkExperts({ ep: 8 }, model, 3)).toThrow("8 ranks share the experts, 3 of them on a node");
    expect(() => checkExperts({ ep: 8 }, model, 1)).toThrow("4 groups of experts do not lie on 8 nodes");
  });

  test.each<[Partial<Layout>, number, number, RegExp]>([
    [{ dp: 4 }, 3, 8, /dp=4,ep=1,pp=1 is for 4 ranks, and there are 3[\s\S]*--layout dp=3/],
    [{ dp: 2, pp: 2 }, 2, 8, /is for 4 ranks, and there are 2/],
    [{ dp: 4, ep: 3 }, 4, 8, /ep=3, which does not divide dp=4[\s\S]*divisors of 4/],
    [{ pp: 3 }, 3, 8, /dualpipe: 3 ranks are odd[\s\S]*dualpipev/],
    [{ dp: 8, pp: 8 }, 64, 8, /8 micro-batches are too few for 8 ranks/],
    [{ pp: 4, schedule: "dualpipev" }, 4, 8, /4 layers do not make 8 stages/],
    [{ pp: 2, schedule: "zb" }, 2, 8, /zb cannot train MTP[\s\S]*--schedule dualpipe/],
    [{ dp: 4, pp: 2 }, 8, 4, /4 gradient shards cannot be cut into 8 equal parts/],
    [{ dp: 3 }, 3, 8, /8 gradient shards cannot be cut into 3[\s\S]*use 1, 2, 4, 8 of them/],
    [{ dp: 2 }, 2, 1, /1 gradient shards cannot be cut into 2[\s\S]*--set gradientShards=2/],
  ])("refuses %j on %d ranks with %d shards", (changes, ranks, gradientShards, message) => {
    const check = (): void => checkLayout(make(changes), ranks, numbers(gradientShards));
    expect(check).toThrow(ConfigError);
    expect(check).toThrow(message);
  });
});
