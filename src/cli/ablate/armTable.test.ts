import { expect, test } from "vitest";
import { type ArmResult, armRow, tableOf } from "./armTable.ts";

const arm = (name: string, losses: readonly number[], maxViolation: number | null): ArmResult => ({
  arm: { name, settings: [] },
  seeds: losses.map((loss, seed) => ({
    seed,
    loss,
    bitsPerByte: loss / 2,
    maxViolation,
    tokensPerSecond: 1000 + seed,
  })),
});

const first = arm("with", [2, 2.1], 0.1);
const second = arm("without it", [2.05, 2.15], null);

test("an arm is compared with the first seed by seed", () => {
  expect(armRow(first, first).lossDifference).toBeNull();
  const { lossDifference, loss, maxViolation, tokensPerSecond } = armRow(second, first);
  expect(lossDifference!.mean).toBeCloseTo(0.05, 12);
  expect(lossDifference!.halfWidth).toBeCloseTo(0, 12);
  // The losses themselves are 0.1 apart: 12.706 * 0.0707 / sqrt 2.
  expect(loss.halfWidth).toBeCloseTo(0.6353, 4);
  expect({ maxViolation, tokensPerSecond }).toEqual({ maxViolation: null, tokensPerSecond: 1001 });
});

test("the table has one line an arm, columns under one another", () => {
  expect(tableOf([first, second], 2)).toBe(
    [
      "  arm           validation loss        to the first    bits per byte   max violation   tokens/s",
      "  with         2.0500 +- 0.6353                       1.025 +- 0.318    0.10 +- 0.00       1001",
      "  without it   2.1000 +- 0.6353   +0.0500 +- 0.0000   1.050 +- 0.318               -       1001",
    ].join("\n"),
  );
});

test("an arm that was stopped says how many of its runs it has, and is compared over these", () => {
  const lines = tableOf([first, arm("without it", [2.07], null)], 2).split("\n");
  expect(lines[2]).toMatch(/^ {2}without it \(1 of 2 runs\) +2\.0700 +\+0\.0700 /);
});
