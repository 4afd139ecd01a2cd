import fc from "fast-check";
import { expect, test } from "vitest";
import { assignOwners } from "./owners.ts";

function loads(bytes: readonly number[], ranks: number): number[] {
  const held = Array.from({ length: ranks }, () => 0);
  for (const [i, owner] of assignOwners(bytes, ranks).entries()) held[owner] = held[owner]! + bytes[i]!;
  return held;
}

test("gives the largest first, each to the rank that has least, ties to the lower rank", () => {
  expect(assignOwners([1, 5, 3, 3], 2)).toEqual([0, 0, 1, 1]);
  expect(assignOwners([2, 2, 2], 3)).toEqual([0, 1, 2]);
  expect(assignOwners([], 2)).toEqual([]);
  expect(assignOwners([7, 7], 1)).toEqual([0, 0]);
});

test("gives every tensor one owner, and no rank more than an even share and one tensor", () => {
  const sizes = fc.array(fc.integer({ min: 1, max: 1e9 }), { minLength: 1, maxLength: 60 });
  fc.assert(
    fc.property(sizes, fc.integer({ min: 1, max: 16 }), (bytes, ranks) => {
      const held = loads(bytes, ranks);
      const total = bytes.reduce((sum, size) => sum + size, 0);
      expect(held.reduce((sum, size) => sum + size, 0)).toBe(total);
      expect(Math.max(...held)).toBeLessThanOrEqual(total / ranks + Math.max(...bytes));
    }),
  );
});
