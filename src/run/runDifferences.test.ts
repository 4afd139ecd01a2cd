import { describe, expect, test } from "vitest";
import { configDifferences, flattenConfig } from "./runDifferences.ts";

describe("flattenConfig", () => {
  test("makes a path of every setting, keeps lists and empty objects whole", () => {
    expect([...flattenConfig({ a: 1, b: { c: null, d: { e: [1, 2] } }, f: {} })]).toEqual([
      ["a", 1],
      ["b.c", null],
      ["b.d.e", [1, 2]],
      ["f", {}],
    ]);
  });
});

describe("configDifferences", () => {
  test("names only what is not equal in all runs", () => {
    const a = { seed: 1, model: { nGroup: 4, sizes: [1, 2] } };
    const b = { seed: 2, model: { nGroup: 4, sizes: [1, 2] } };
    const c = { seed: 1, model: { nGroup: 4, sizes: [1, 3] }, extra: true };
    expect(configDifferences([a, b, c])).toEqual([
      { key: "seed", values: [1, 2, 1] },
      {
        key: "model.sizes",
        values: [
          [1, 2],
          [1, 2],
          [1, 3],
        ],
      },
      { key: "extra", values: [undefined, undefined, true] },
    ]);
    expect(configDifferences([a])).toEqual([]);
    expect(configDifferences([a, structuredClone(a)])).toEqual([]);
  });
});
