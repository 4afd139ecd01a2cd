import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { PieceTable } from "./pieceTable.ts";

describe("PieceTable", () => {
  test("it numbers byte strings as a Map of strings would, over growth and clearing", () => {
    const few = fc.uint8Array({ maxLength: 5, max: 3 });
    const many = fc.uint8Array({ maxLength: 12 });
    fc.assert(
      fc.property(fc.array(fc.oneof(few, many), { maxLength: 2000, size: "max" }), (keys) => {
        const table = new PieceTable();
        for (const part of [keys, keys.slice(keys.length / 2)]) {
          const plain = new Map<string, number>();
          for (const key of part) {
            const name = key.join();
            if (!plain.has(name)) plain.set(name, plain.size);
            expect(table.add(key, 0, key.length)).toBe(plain.get(name));
          }
          expect(table.size).toBe(plain.size);
          table.clear();
        }
      }),
      { numRuns: 20 },
    );
  });

  test("a key is a part of a longer array, and its bytes come back", () => {
    const table = new PieceTable();
    const bytes = new TextEncoder().encode("to be or not to be");
    expect([table.add(bytes, 0, 2), table.add(bytes, 6, 8), table.add(bytes, 13, 15)]).toEqual([0, 1, 0]);
    expect(table.bytesOf(1)).toEqual(new TextEncoder().encode("or"));
    expect(table.numBytes).toBe(4);
  });

  test("200,000 words of the same letters stay quick to find", () => {
    const table = new PieceTable();
    const start = performance.now();
    for (let round = 0; round < 2; round++) {
      for (let number = 0; number < 200_000; number++) {
        const bytes = new TextEncoder().encode(number.toString(2).padStart(18, "0"));
        if (table.add(bytes, 0, bytes.length) !== number) expect.fail(`${number} has another number`);
      }
    }
    expect(performance.now() - start).toBeLessThan(30_000);
  });
});
