import { describe, expect, test } from "vitest";
import { isPlainObject } from "./json.ts";

describe("isPlainObject", () => {
  test.each([
    ["an object literal", {}, true],
    ["an object without a prototype", Object.create(null), true],
    ["what JSON.parse gives", JSON.parse('{"__proto__": 1}'), true],
    ["null", null, false],
    ["a list", [], false],
    ["a date", new Date(0), false],
    ["a map", new Map(), false],
    ["text", "x", false],
    ["a function", () => ({}), false],
  ])("%s: %#", (_, value, expected) => {
    expect(isPlainObject(value)).toBe(expected);
  });
});
