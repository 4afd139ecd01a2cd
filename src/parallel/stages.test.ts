import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ConfigError } from "../base/index.ts";
import { splitStages } from "./stages.ts";

describe("splitStages", () => {
  test("gives every layer to one stage, in order, in runs that differ by one at most, longer ones first", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 0, max: 80 }), (stages, more) => {
        const ranges = splitStages({ numHiddenLayers: stages + more }, stages);
        expect(ranges.length).toBe(stages);
        expect(ranges.map(({ from }) => from)).toEqual([0, ...ranges.slice(0, -1).map(({ to }) => to)]);
        expect(ranges.at(-1)!.to).toBe(stages + more);
        const lengths = ranges.map(({ from, to }) => to - from);
        expect(lengths).toEqual(lengths.toSorted((a, b) => b - a));
        expect(lengths[0]! - lengths.at(-1)!).toBeLessThanOrEqual(1);
        expect(lengths.at(-1)!).toBeGreaterThanOrEqual(1);
      }),
    );
  });

  test("refuses a stage without a layer, and takes as many layers as it asks for instead", () => {
    const split = () => splitStages({ numHiddenLayers: 7 }, 8);
    expect(split).toThrow(ConfigError);
    expect(split).toThrow(/7 layers do not make 8 stages[\s\S]*numHiddenLayers=8/);
    expect(splitStages({ numHiddenLayers: 8 }, 8).at(-1)).toEqual({ from: 7, to: 8 });
  });
});
