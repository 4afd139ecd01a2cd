import { describe, expect, test } from "vitest";
import { ConfigError } from "../base/index.ts";
import { reportRecipe } from "../tensor/index.ts";
import { defaultTrainConfig, parseTrainConfig } from "./configSchema.ts";

describe("a config that an older version has stored", () => {
  /** As run.json held it before recomputation, Muon, evaluate.lastRows and FP8. */
  function older(): Record<string, unknown> {
    const { recompute: _r, fp8: _f, optimizer, evaluate, ...rest } = defaultTrainConfig("unit", 100);
    const { kind: _k, momentum: _m, ...adamw } = optimizer;
    const { lastRows: _l, ...evaluation } = evaluate;
    return JSON.parse(JSON.stringify({ ...rest, optimizer: adamw, evaluate: evaluation }));
  }

  test("means what it meant then: AdamW, nothing computed twice, all held-out rows at the end", () => {
    const config = parseTrainConfig(older(), "run.json");
    expect(config).toEqual(defaultTrainConfig("unit", 100));
    expect(config.optimizer.kind).toBe("adamw");
    expect(config.recompute).toBe("none");
    expect(config.evaluate.lastRows).toBeNull();
  });

  test("is refused with the key's name where a setting is missing that has no old meaning", () => {
    const { seed: _, ...rest } = older();
    expect(() => parseTrainConfig(rest, "run.json")).toThrow(ConfigError);
    expect(() => parseTrainConfig(rest, "run.json")).toThrow(/run\.json: seed is missing/);
  });

  test("is refused where a newer version has stored a setting that this one does not know", () => {
    const newer = { ...older(), optimizer: { ...defaultTrainConfig("unit", 100).optimizer, sharpness: 1 } };
    expect(() => parseTrainConfig(newer, "run.json")).toThrow(/optimizer\.sharpness is not a known setting/);
  });
});

describe("a config in FP8", () => {
  const config = defaultTrainConfig("unit", 100, undefined, "fp8");

  test("keeps AdamW's moments in bf16, as the report does, and is the report's recipe", () => {
    expect(config.optimizer.moments).toBe("bf16");
    expect(config.fp8).toEqual(reportRecipe);
    expect(defaultTrainConfig("unit", 100).optimizer.moments).toBe("f32");
  });

  test.each([16, 32, 64, 128] as const)("may promote sums every %d products", (promotion) => {
    expect(parseTrainConfig({ ...config, fp8: { ...config.fp8, promotion } }, "here").fp8.promotion).toBe(
      promotion,
    );
  });

  test("is where FP8's settings belong: in another precision they would be ignored", () => {
    const others = { ...config, precision: "bf16", fp8: { ...config.fp8, scaling: "tensor" } };
    expect(() => parseTrainConfig(others, "here")).toThrow(/have no effect in another precision/);
    expect(parseTrainConfig({ ...others, precision: "fp8" }, "here").fp8.scaling).toBe("tensor");
  });

  test("may leave out promotion where sums have 14 bits, and nowhere else", () => {
    const never = (accumulatorBits: number): unknown => ({
      ...config,
      fp8: { ...config.fp8, promotion: 0, accumulatorBits },
    });
    expect(parseTrainConfig(never(14), "here").fp8.promotion).toBe(0);
    expect(() => parseTrainConfig(never(0), "here")).toThrow(ConfigError);
    expect(() => parseTrainConfig(never(13), "here")).toThrow(/fp8\.accumulatorBits/);
    expect(() => parseTrainConfig({ ...config, fp8: { ...config.fp8, promotion: 48 } }, "here")).toThrow(
      /fp8\.promotion/,
    );
  });
});
