import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { makeRandom } from "../../../test/support/random.ts";
import { type Piece, packRows, planPacking } from "./pack.ts";

const corpora = fc.record({
  rowWidth: fc.integer({ min: 1, max: 40 }),
  lengths: fc.array(fc.nat({ max: 100 }), { maxLength: 60 }),
});

const lengthOf = (pieces: readonly Piece[]): number => pieces.reduce((sum, { length }) => sum + length, 0);

/** Documents whose tokens are all different, so that each can be found again. */
function documentsOf(lengths: readonly number[]): Int32Array[] {
  let next = 0;
  return lengths.map((length) => Int32Array.from({ length }, () => next++));
}

/** What a packer does that takes documents as they come and never looks back: rows filled in order. */
function firstFitRows(lengths: readonly number[], rowWidth: number): number {
  const rooms: number[] = [];
  for (const total of lengths) {
    for (let left = total; left > 0; left -= rowWidth) {
      const piece = Math.min(left, rowWidth);
      const row = rooms.findIndex((room) => room >= piece);
      if (row < 0) rooms.push(rowWidth - piece);
      else rooms[row]! -= piece;
    }
  }
  return rooms.length;
}

describe("planPacking", () => {
  test("places every token of every document exactly once", () => {
    fc.assert(
      fc.property(corpora, ({ lengths, rowWidth }) => {
        const seen = lengths.map((length) => new Uint8Array(length));
        for (const { document, start, length } of planPacking(lengths, rowWidth).flat())
          for (let i = start; i < start + length; i++) seen[document]![i]!++;
        for (const marks of seen) expect(marks.every((count) => count === 1)).toBe(true);
      }),
    );
  });

  test("never fills a row beyond its width, and leaves none empty", () => {
    fc.assert(
      fc.property(corpora, ({ lengths, rowWidth }) => {
        for (const row of planPacking(lengths, rowWidth)) {
          expect(lengthOf(row)).toBeLessThanOrEqual(rowWidth);
          expect(lengthOf(row)).toBeGreaterThan(0);
        }
      }),
    );
  });

  test("cuts no document that fits a row", () => {
    fc.assert(
      fc.property(corpora, ({ lengths, rowWidth }) => {
        for (const { document, start, length } of planPacking(lengths, rowWidth).flat())
          if (lengths[document]! <= rowWidth) expect([start, length]).toEqual([0, lengths[document]]);
      }),
    );
  });

  test("opens no row for a piece that an earlier row could still take", () => {
    fc.assert(
      fc.property(corpora, ({ lengths, rowWidth }) => {
        const rows = planPacking(lengths, rowWidth);
        // Pieces come longest first: when a row was opened, the earlier ones held what is at least as long as its first.
        for (const [r, row] of rows.entries()) {
          for (const earlier of rows.slice(0, r)) {
            const before = earlier.filter(({ length }) => length >= row[0]!.length);
            expect(rowWidth - lengthOf(before)).toBeLessThan(row[0]!.length);
          }
        }
      }),
    );
  });

  test("is more than half full in all rows but one", () => {
    fc.assert(
      fc.property(corpora, ({ lengths, rowWidth }) => {
        const half = planPacking(lengths, rowWidth).filter((row) => lengthOf(row) * 2 <= rowWidth);
        expect(half.length).toBeLessThanOrEqual(1);
      }),
    );
  });

  test("depends on the lengths alone", () => {
    fc.assert(
      fc.property(corpora, ({ lengths, rowWidth }) => {
        expect(planPacking(lengths, rowWidth)).toEqual(planPacking([...lengths], rowWidth));
      }),
    );
  });

  test("takes the row with the least room that is enough", () => {
    // Rooms left after 7, 6 and 5 are 3, 4 and 5; a piece of 4 fits two of them and belongs where it leaves nothing.
    const rows = planPacking([7, 6, 5, 4], 10);
    expect(rows.map((row) => row.map(({ document }) => document))).toEqual([[0], [1, 3], [2]]);
  });

  test("needs no more rows than first fit on texts as they come, and pads less than 2 %", () => {
    const random = makeRandom(5);
    for (const rowWidth of [64, 129, 257]) {
      // Lengths spread like those of real texts: many short ones, few long ones.
      const lengths = Array.from({ length: 400 }, () => 1 + Math.floor(300 * random() ** 3));
      const rows = planPacking(lengths, rowWidth).length;
      expect(rows).toBeLessThanOrEqual(firstFitRows(lengths, rowWidth));
      const total = lengths.reduce((sum, length) => sum + length, 0);
      expect(rows * rowWidth - total).toBeLessThan(0.02 * total);
    }
  });

  test("has no rows for no text", () => {
    expect(planPacking([], 8)).toEqual([]);
    expect(planPacking([0, 0], 8)).toEqual([]);
  });
});

describe("packRows", () => {
  test("writes every token once, pieces in the order of the plan, and pads with -1", () => {
    fc.assert(
      fc.property(corpora, ({ lengths, rowWidth }) => {
        const documents = documentsOf(lengths);
        const plan = planPacking(lengths, rowWidth);
        const rows = packRows(documents, plan, rowWidth);
        expect(rows.length).toBe(plan.length * rowWidth);
        for (const [r, pieces] of plan.entries()) {
          const wanted = pieces.flatMap(({ document, start, length }) =>
            Array.from(documents[document]!.subarray(start, start + length)),
          );
          const padding = new Array<number>(rowWidth - wanted.length).fill(-1);
          expect(Array.from(rows.subarray(r * rowWidth, (r + 1) * rowWidth))).toEqual([
            ...wanted,
            ...padding,
          ]);
        }
        const tokens = rows.filter((id) => id >= 0).sort();
        expect(tokens).toEqual(Int32Array.from({ length: tokens.length }, (_, i) => i));
        expect(tokens.length).toBe(lengths.reduce((sum, length) => sum + length, 0));
      }),
    );
  });

  test("keeps a long document's pieces whole: each row but the last is all its own", () => {
    const documents = documentsOf([25]);
    const rows = packRows(documents, planPacking([25], 10), 10);
    expect(Array.from(rows)).toEqual([...Array.from({ length: 25 }, (_, i) => i), -1, -1, -1, -1, -1]);
  });
});
