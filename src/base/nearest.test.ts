import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { editDistance, nearestName } from "./nearest.ts";

describe("editDistance", () => {
  test.each([
    ["", "", 0],
    ["", "abc", 3],
    ["kitten", "sitting", 3],
    ["flaw", "lawn", 2],
    ["hidden", "hiden", 1],
    ["route", "rotue", 1], // one swap of neighbours, where plain Levenshtein counts two
    ["ca", "abc", 3], // the restricted form never edits a swapped pair again
  ])("of %j and %j is %i", (a, b, distance) => {
    expect(editDistance(a, b)).toBe(distance);
  });

  test("is symmetric, zero only for equal strings, and at most the longer length", () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 12 }), fc.string({ maxLength: 12 }), (a, b) => {
        const distance = editDistance(a, b);
        expect(distance).toBe(editDistance(b, a));
        expect(distance === 0).toBe(a === b);
        expect(distance).toBeLessThanOrEqual(Math.max(a.length, b.length));
        expect(distance).toBeGreaterThanOrEqual(Math.abs(a.length - b.length));
      }),
    );
  });
});

describe("nearestName", () => {
  const known = ["hiddenSize", "kvLoraRank", "qLoraRank", "nGroup", "topkGroup"];

  test.each([
    ["hidenSize", "hiddenSize"],
    ["hiddneSize", "hiddenSize"],
    ["kv_lora_rank", "kvLoraRank"],
    ["KV-LORA-RANK", "kvLoraRank"],
    ["ngruop", "nGroup"],
    ["topGroup", "topkGroup"],
  ])("finds what %j meant", (name, meant) => {
    expect(nearestName(name, known)).toBe(meant);
  });

  test("is silent where nothing is near", () => {
    expect(nearestName("temperature", known)).toBeUndefined();
    expect(nearestName("x", [])).toBeUndefined();
  });

  test("gives a tie to the name that comes first", () => {
    expect(nearestName("cat", ["bat", "hat"])).toBe("bat");
  });
});
