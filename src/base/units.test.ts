import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { UsageError } from "./errors.ts";
import {
  formatBytes,
  formatCount,
  formatDuration,
  formatInteger,
  formatQuantity,
  formatRate,
  formatScalar,
  formatShare,
  parseBytes,
  parseCount,
  parseDuration,
} from "./units.ts";

describe("formatting", () => {
  test.each([
    [0, "0 B"],
    [1023, "1023 B"],
    [1024, "1 KiB"],
    [1536, "1.5 KiB"],
    [1024 ** 2 - 1, "1 MiB"],
    [99.9 * 1024 ** 2, "99.9 MiB"],
    [1.48 * 1024 ** 3, "1.48 GiB"],
    [671e9 * 2, "1.22 TiB"],
  ])("%f bytes are %s", (bytes, text) => expect(formatBytes(bytes)).toBe(text));

  test.each([
    [0, "0"],
    [999, "999"],
    [1000, "1k"],
    [13_600_000, "13.6M"],
    [999_950, "1M"],
    [671e9, "671G"],
    [12.345, "12.3"],
    [-2500, "-2.5k"],
  ])("a count of %f is %s", (count, text) => expect(formatCount(count)).toBe(text));

  test.each([
    [0.0321, "32 ms"],
    [0.9996, "1.0s"],
    [12.34, "12.3s"],
    [59.96, "1m 00s"],
    [65, "1m 05s"],
    [3599.6, "1h 00m"],
    [3725, "1h 02m"],
    [86_399, "1d 00h"],
    [180_000, "2d 02h"],
    [-5, "-5.0s"],
    [Number.POSITIVE_INFINITY, "-"],
  ])("%f seconds are %s", (seconds, text) => expect(formatDuration(seconds)).toBe(text));

  test.each([
    [1, "1"],
    [1234567, "1,234,567"],
    [-1234.4, "-1,234"],
    [999, "999"],
  ])("the integer %f is %s", (value, text) => expect(formatInteger(value)).toBe(text));

  test.each([
    [0, "0"],
    [4.16589, "4.166"],
    [0.0022, "0.002200"],
    [0.00022, "2.2e-4"],
    [123456, "123456"],
    [2.5e7, "2.5e7"],
    [Number.NaN, "NaN"],
  ])("the scalar %f is %s", (value, text) => expect(formatScalar(value)).toBe(text));

  test("rates and shares carry their unit", () => {
    expect(formatRate(8690.4, "tok")).toBe("8,690 tok/s");
    expect(formatRate(2_500_000, "tok")).toBe("2.5 Mtok/s");
    expect(formatRate(420e9, "FLOP")).toBe("420 GFLOP/s");
    expect(formatQuantity(40_900_000, "FLOP")).toBe("40.9 MFLOP");
    expect(formatRate(3.5, "step")).toBe("3.5 step/s");
    expect(formatShare(0.42125)).toBe("42.1%");
  });

  test("no number of bytes below a pebibyte takes more than 8 columns", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 1024 ** 5 - 1 }), (bytes) => {
        expect(formatBytes(bytes).length).toBeLessThanOrEqual(8);
      }),
    );
  });

  test("a duration never shows 60 of a smaller unit", () => {
    fc.assert(
      fc.property(fc.double({ min: 0, max: 1e7, noNaN: true }), (seconds) => {
        expect(formatDuration(seconds)).not.toMatch(/\b60(\.0)?[sm]|\b24h|1000 ms/);
      }),
    );
  });
});

describe("parsing", () => {
  test.each([
    ["4096", 4096],
    ["512MiB", 512 * 1024 ** 2],
    ["2 GB", 2 * 1024 ** 3],
    ["1.5g", 1.5 * 1024 ** 3],
    ["10 B", 10],
  ])("the size %s is %i bytes", (text, bytes) => expect(parseBytes(text)).toBe(bytes));

  test.each([
    ["250k", 250_000],
    ["1.5M", 1_500_000],
    ["1e6", 1_000_000],
    ["671B", 671e9],
    ["12", 12],
  ])("the count %s is %i", (text, count) => expect(parseCount(text)).toBe(count));

  test.each([
    ["90s", 90],
    ["1h30m", 5400],
    ["1h 02m", 3720],
    ["2.5 h", 9000],
    ["250ms", 0.25],
    ["5min", 300],
    ["1d", 86_400],
  ])("the duration %s is %f s", (text, seconds) => expect(parseDuration(text)).toBeCloseTo(seconds, 9));

  test.each(["", "5", "fast", "1h30", "3 parsecs", "-5m", "m5"])("%j is no duration", (text) => {
    expect(() => parseDuration(text)).toThrow(UsageError);
  });

  test.each(["", "MiB", "5 miles", "-1", "0x10"])("%j is no size", (text) => {
    expect(() => parseBytes(text)).toThrow(UsageError);
  });

  test("half a token is no count", () => {
    expect(() => parseCount("0.5")).toThrowErrorMatchingInlineSnapshot(`
      [UsageError: "0.5" is not a count
        why: a count is a number with its unit
        fix: write it like 250k, 1.5M or 1e6]
    `);
  });

  test("a count that doubles cannot multiply exactly is still whole", () => {
    expect(parseCount("33.2G")).toBe(33_200_000_000);
    expect(() => parseCount("1.5")).toThrow(UsageError);
  });

  test("what is formatted is parsed again within the three digits that are shown", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 1e12 }), (count) => {
        expect(Math.abs(parseCount(formatCount(count)) / count - 1)).toBeLessThan(0.0051);
        expect(Math.abs(parseBytes(formatBytes(count)) / count - 1)).toBeLessThan(0.0051);
      }),
    );
  });
});
