import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type ModelConfig, presetConfig } from "../model/index.ts";
import { type Stage, splitStages } from "./stages.ts";

const v3 = presetConfig("v3-671b");
const even = { dense: 1, moe: 1, tail: 1 };

function withLayers(numHiddenLayers: number, firstKDenseReplace: number): ModelConfig {
  return { ...v3, numHiddenLayers, firstKDenseReplace };
}

/** Weight of a stage; the tail's MTP layers are in its weight. */
function weigh(stage: Stage, { dense, moe, tail }: typeof even): number {
  const layers = stage.moeLayers - stage.mtpModules;
  return stage.denseLayers * dense + layers * moe + (stage.hasHead ? tail : 0);
}

describe("splitStages", () => {
  test("gives 16 stages of V3 the embedding first, head and MTP last, four layers in most", () => {
    const stages = splitStages(v3, 16, { dense: 1, moe: 1, tail: 2.6 }, false);
    expect(stages).toHaveLength(16);
    expect(stages.map(({ hasEmbedding }) => hasEmbedding)).toEqual([true, ...new Array(15).fill(false)]);
    expect(stages.map(({ hasHead }) => hasHead)).toEqual([...new Array(15).fill(false), true]);
    expect(Math.max(...stages.map((stage) => weigh(stage, { dense: 1, moe: 1, tail: 2.6 })))).toBe(4);
    expect(stages[0]).toMatchObject({ denseLayers: 3, moeLayers: 1 });
    expect(stages[15]).toMatchObject({ mtpModules: 1 });
  });

  test("one stage has everything", () => {
    expect(splitStages(v3, 1, even, false)).toEqual([
      { denseLayers: 3, moeLayers: 59, hasEmbedding: true, hasHead: true, mtpModules: 1 },
    ]);
  });

  test("has every layer once, in every stage something, whatever the weights", () => {
    const weight = fc.double({ min: 0.1, max: 10, noNaN: true });
    const weights = fc.record({ dense: weight, moe: weight, tail: weight });
    fc.assert(
      fc.property(
        fc.integer({ min: 2, max: 40 }),
        fc.integer({ min: 0, max: 5 }),
        fc.integer({ min: 1, max: 20 }),
        weights,
        fc.boolean(),
        (layers, dense, wanted, given, isFolded) => {
          const firstDense = Math.min(dense, layers);
          const most = Math.min(wanted, layers);
          const numStages = isFolded ? Math.max(2, most - (most % 2)) : most;
          const stages = splitStages(withLayers(layers, firstDense), numStages, given, isFolded);
          const sum = (of: (stage: Stage) => number): number =>
            stages.reduce((total, stage) => total + of(stage), 0);
          expect(stages).toHaveLength(numStages);
          expect(sum((stage) => stage.denseLayers)).toBe(firstDense);
          expect(sum((stage) => stage.moeLayers - stage.mtpModules)).toBe(layers - firstDense);
          expect(sum((stage) => Number(stage.hasHead))).toBe(1);
          for (const stage of stages) expect(weigh(stage, given)).toBeGreaterThan(0);
        },
      ),
    );
  });

  test("the busiest stage has as little as any split could give it", () => {
    const bruteForce = (items: readonly number[], parts: number): number => {
      if (parts === 1) return items.reduce((sum, item) => sum + item, 0);
      const firsts = Array.from({ length: items.length - parts + 1 }, (_, i) => i + 1);
      return Math.min(
        ...firsts.map((n) =>
          Math.max(bruteForce(items.slice(0, n), 1), bruteForce(items.slice(n), parts - 1)),
        ),
      );
    };
    const whole = fc.integer({ min: 1, max: 9 });
    fc.assert(
      fc.property(
        fc.integer({ min: 3, max: 8 }),
        fc.integer({ min: 1, max: 4 }),
        whole,
        whole,
        whole,
        (layers, parts, dense, moe, tail) => {
          const numStages = Math.min(parts, layers);
          const weights = { dense, moe, tail };
          const stages = splitStages(withLayers(layers, 2), numStages, weights, false);
          const items = Array.from({ length: layers }, (_, i) => (i < 2 ? dense : moe));
          const found = Math.max(...stages.map((stage) => weigh(stage, weights)));
          expect(found).toBe(bruteForce([...items, tail], numStages));
        },
      ),
      { numRuns: 60 },
    );
  });

  test("folded, the stage with one layer more is not on the rank with the heavy tail", () => {
    const weights = { dense: 1, moe: 1, tail: 4.7 };
    const stages = splitStages(v3, 16, weights, true);
    const ranks = Array.from(
      { length: 8 },
      (_, r) => weigh(stages[r]!, weights) + weigh(stages[15 - r]!, weights),
    );
    expect(Math.max(...ranks)).toBeCloseTo(9, 9);
    expect(weigh(stages[0]!, weights)).toBe(4);
  });

  test("folded, a rank's two stages are the first and the last, the second and the last but one", () => {
    const weights = { dense: 1, moe: 1, tail: 6 };
    const stages = splitStages(withLayers(14, 0), 4, weights, true).map((stage) => weigh(stage, weights));
    expect(stages[0]! + stages[3]!).toBe(10);
    expect(stages[1]! + stages[2]!).toBe(10);
    expect(stages[3]).toBe(6);
  });
});
