import { describe, expect, test } from "vitest";
import { ConfigError } from "../base/index.ts";
import { presetConfig } from "../model/index.ts";
import { balanceExperts } from "./expertBalance.ts";
import { type ServingUnit, servingUnits } from "./serving.ts";

const v3 = presetConfig("v3-671b");
const [prefill, decode] = servingUnits.filter(({ name }) => name.startsWith("production")) as [
  ServingUnit,
  ServingUnit,
];

/** Few experts are hot: the k-th of a layer has 1 / k of the first's tokens, the layers turned against each other. */
function hotLoads(layers: number): number[][] {
  return Array.from({ length: layers }, (_, layer) =>
    Array.from({ length: 256 }, (_, expert) => Math.round(10_000 / (1 + ((expert * 7 + layer * 31) % 256)))),
  );
}

describe("balanceExperts", () => {
  const loads = hotLoads(4);

  test("copies and placement bring every layer's busiest device nearer to the mean", () => {
    for (const unit of [prefill, decode]) {
      const { before, after, mostCopies } = balanceExperts(v3, loads, unit);
      for (const [layer, share] of after.entries()) {
        expect(share).toBeLessThan(before[layer]!);
        expect(share).toBeGreaterThanOrEqual(1);
        expect(mostCopies[layer]).toBeGreaterThan(1);
      }
    }
  });

  test("four nodes keep groups together, eighteen are one pool", () => {
    expect(balanceExperts(v3, loads, prefill).isHierarchical).toBe(true);
    expect(balanceExperts(v3, loads, decode).isHierarchical).toBe(false);
  });

  test("the released example: 12 experts in 4 groups, 16 copies on 2 nodes of 4 devices", () => {
    const unit: ServingUnit = {
      name: "example",
      phase: "prefill",
      nodes: 2,
      devices: 8,
      redundantExperts: 4,
    };
    const config = { ...v3, nRoutedExperts: 12, nGroup: 4 };
    const example = [
      [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
      [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
    ];
    const { after } = balanceExperts(config, example, unit);
    // Busiest devices 156 of 1033 / 8, and 179.5 of 1156 / 8.
    expect(after[0]).toBeCloseTo(156 / (1033 / 8), 9);
    expect(after[1]).toBeCloseTo(179.5 / (1156 / 8), 9);
  });

  test("even loads are balanced before, and a layer without tokens counts as even", () => {
    const { before, after } = balanceExperts(v3, [new Array(256).fill(5), new Array(256).fill(0)], prefill);
    expect(before).toEqual([1, 1]);
    expect(after[1]).toBe(1);
    expect(after[0]).toBeLessThan(1.2);
  });

  test("loads of another model are refused with the layer", () => {
    expect(() => balanceExperts(v3, [[1, 2, 3]], prefill)).toThrow(ConfigError);
    expect(() => balanceExperts(v3, [[1, 2, 3]], prefill)).toThrow(
      /layer 0 of the loads has 3 experts, the model 256/,
    );
  });
});
