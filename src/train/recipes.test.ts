import { describe, expect, test } from "vitest";
import { presets } from "../model/index.ts";
import { defaultTrainConfig } from "./configSchema.ts";
import { recipes } from "./recipes.ts";
import { learningRateAt } from "./schedule.ts";

describe("a recipe", () => {
  test.each(Object.keys(recipes))("of %s belongs to a preset and makes a whole config", (preset) => {
    expect(Object.keys(presets)).toContain(preset);
    const { rowLength, batchRows, optimizer } = defaultTrainConfig(preset, 100);
    expect(rowLength * batchRows).toBe(recipes[preset]!.tokensPerStep);
    expect(optimizer.learningRate).toBe(recipes[preset]!.optimizer.learningRate);
  });

  test("changes only what it names: the others keep the report's optimizer and schedule", () => {
    const { optimizer, schedule, data } = defaultTrainConfig("nano", 100);
    expect(optimizer).toMatchObject({
      kind: "adamw",
      beta1: 0.9,
      beta2: 0.95,
      weightDecay: 0.1,
      clipNorm: 1,
    });
    expect(schedule).toMatchObject({ cosineFrom: 10 / 14.8, floor: 0.1 });
    expect(data).toMatchObject({ tokenizer: null, fimRate: 0.1 });
  });

  test("of shakespeare lets the learning rate fall from a fifth of the run to its very end", () => {
    const config = defaultTrainConfig("shakespeare", 200);
    const rate = (step: number): number =>
      learningRateAt(config, { step, share: step / 200 }) / config.optimizer.learningRate;
    expect(rate(40)).toBe(1);
    expect(rate(41)).toBeLessThan(1);
    expect(rate(199)).toBeCloseTo(0.02, 3);
    expect(config).toMatchObject({ optimizer: { kind: "muon" }, data: { tokenizer: "bytes", fimRate: 0 } });
  });
});
