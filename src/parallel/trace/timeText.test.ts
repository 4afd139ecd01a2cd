import { expect, test } from "vitest";
import { timeText, timeUnit } from "./timeText.ts";

test.each([
  [100, "s"],
  [2, "s"],
  [1.999, "ms"],
  [2e-3, "ms"],
  [1.999e-3, "µs"],
  [0, "µs"],
])("a timeline of %d s is told in %s", (length, name) => {
  expect(timeUnit(length).name).toBe(name);
});

test("a time has four significant digits and no zeros behind them, also where it is far smaller than its unit", () => {
  expect(timeText(13.9512, timeUnit(20))).toBe("13.95 s");
  expect(timeText(0.0125, timeUnit(1))).toBe("12.5 ms");
  expect(timeText(3e-6, timeUnit(1e-3))).toBe("3 µs");
  expect(timeText(123456, timeUnit(2e5))).toBe("123500 s");
  expect(timeText(-1.5, timeUnit(3))).toBe("-1.5 s");
  expect(timeText(0.0000123456, timeUnit(3))).toBe("0.00001235 s");
});
