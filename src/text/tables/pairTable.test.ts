import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { PairTable } from "./pairTable.ts";

describe("PairTable", () => {
  test("it numbers pairs as a Map of strings would", () => {
    const id = fc.oneof(fc.integer({ min: 0, max: 30 }), fc.integer({ min: 0, max: 2 ** 20 }));
    fc.assert(
      fc.property(fc.array(fc.tuple(id, id), { maxLength: 3000, size: "max" }), (pairs) => {
        const table = new PairTable();
        const plain = new Map<string, number>();
        for (const [left, right] of pairs) {
          const name = `${left} ${right}`;
          expect(table.find(left, right)).toBe(plain.get(name) ?? -1);
          if (!plain.has(name)) plain.set(name, plain.size);
          expect(table.add(left, right)).toBe(plain.get(name));
        }
        expect(table.size).toBe(plain.size);
        const names = Array.from(
          { length: table.size },
          (_, at) => `${table.leftOf(at)} ${table.rightOf(at)}`,
        );
        expect(names).toEqual([...plain.keys()]);
      }),
      { numRuns: 20 },
    );
  });

  test("a pair and its mirror are two", () => {
    const table = new PairTable();
    table.add(3, 4);
    expect(table.find(4, 3)).toBe(-1);
    expect(table.add(4, 3)).toBe(1);
  });
});
