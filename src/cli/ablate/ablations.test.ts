import { describe, expect, test } from "vitest";
import { UsageError } from "../../base/index.ts";
import { presetConfig, trainingFlopsPerToken } from "../../model/index.ts";
import { ABLATIONS, chosenAblations, denseTwin, planAblation } from "./ablations.ts";

describe("the dense twin", () => {
  test.each(["unit", "micro", "nano", "shakespeare"])(
    "of %s has no experts and its FLOPs per token",
    (preset) => {
      const model = presetConfig(preset);
      const twin = { ...model, ...denseTwin(model, 64) };
      expect(twin.firstKDenseReplace).toBe(twin.numHiddenLayers);
      const wanted = trainingFlopsPerToken({ ...model, numNextnPredictLayers: 0 }, 64).total;
      // To the nearest unit of width.
      expect(Math.abs(trainingFlopsPerToken(twin, 64).total / wanted - 1)).toBeLessThan(0.01);
    },
  );
});

describe("the ablations", () => {
  test("give the dense arm the twin's sizes, as a user would write them", () => {
    const model = presetConfig("unit");
    const { intermediateSize, firstKDenseReplace } = denseTwin(model, 32);
    expect(planAblation("moe", model, 32).arms[1]!.settings).toEqual([
      "model.numNextnPredictLayers=0",
      `model.firstKDenseReplace=${firstKDenseReplace}`,
      `model.intermediateSize=${intermediateSize}`,
    ]);
  });

  test("have two arms or more, of different names and settings", () => {
    for (const name of ABLATIONS) {
      const { arms } = planAblation(name, presetConfig("unit"), 32);
      expect(arms.length).toBeGreaterThan(1);
      expect(new Set(arms.map((arm) => arm.name)).size).toBe(arms.length);
      expect(new Set(arms.map(({ settings }) => settings.join(" "))).size).toBe(arms.length);
    }
  });

  test("are chosen by name, all but FP8's by default, and a wrong name is told the right ones", () => {
    expect(chosenAblations(undefined)).toEqual(ABLATIONS.filter((name) => name !== "fp8"));
    expect(chosenAblations("fp8")).toEqual(["fp8"]);
    expect(chosenAblations("moe, mtp")).toEqual(["moe", "mtp"]);
    expect(() => chosenAblations("mtp,moee")).toThrow(UsageError);
    expect(() => chosenAblations("")).toThrow(/there is no ablation ""/);
  });
});
