import { describe, expect, test } from "vitest";
import { ConfigError } from "../base/index.ts";
import { defaultTrainConfig, parseTrainConfig } from "./configSchema.ts";

describe("a config that an older version has stored", () => {
  /** As run.json held it before recomputation, Muon and evaluate.lastRows. */
  function older(): Record<string, unknown> {
    const { recompute: _r, optimizer, evaluate, ...rest } = defaultTrainConfig("unit", 100);
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
