import fc from "fast-check";
import { expect, test } from "vitest";
import { assignOwners, assignShare, type Sharing, shareOfRank } from "./owners.ts";

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

const sharings = fc
  .record({ log: fc.nat(2), groups: fc.integer({ min: 1, max: 4 }), directions: fc.constantFrom(1, 2) })
  .map(({ log, groups, directions }): Sharing => {
    const ep = 2 ** log;
    return { ranks: groups * ep * directions, ep, directions };
  });
const tensors = fc.array(fc.record({ bytes: fc.integer({ min: 1, max: 1e6 }), isRouted: fc.boolean() }), {
  maxLength: 30,
});

test("the mirrored ranks of a data-parallel rank have its share of the experts", () => {
  const ranks = Array.from({ length: 8 }, (_, rank) => rank);
  const of = (sharing: Omit<Sharing, "ranks">): number[] =>
    ranks.map((rank) => shareOfRank({ ranks: 8, ...sharing }, rank));
  expect(of({ ep: 2, directions: 1 })).toEqual([0, 1, 0, 1, 0, 1, 0, 1]);
  expect(of({ ep: 2, directions: 2 })).toEqual([0, 0, 1, 1, 0, 0, 1, 1]);
  expect(of({ ep: 4, directions: 2 })).toEqual([0, 0, 1, 1, 2, 2, 3, 3]);
  expect(of({ ep: 1, directions: 2 })).toEqual(ranks.map(() => 0));
});

test("of routed tensors each share lies at its ranks alone, of all others one copy at every rank; all have one owner", () => {
  fc.assert(
    fc.property(tensors, sharings, (list, sharing) => {
      const everyone = Array.from({ length: sharing.ranks }, (_, rank) => rank);
      const shares = Array.from({ length: sharing.ep }, (_, share) => assignShare(list, sharing, share));
      for (const [i, { isRouted }] of list.entries()) {
        const parts = shares.map((held) => held[i]!);
        for (const { holders, owner } of parts) expect(holders).toContain(owner);
        if (isRouted) expect(parts.flatMap(({ holders }) => holders).sort((a, b) => a - b)).toEqual(everyone);
        // All ranks name the same.
        else for (const held of parts) expect(held).toEqual({ holders: everyone, owner: parts[0]!.owner });
      }
    }),
  );
});
