import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BytePairEncoder, IdList } from "./bpe.ts";
import { MergeTable } from "./tables/mergeTable.ts";

interface Merge {
  readonly left: number;
  readonly right: number;
  readonly id: number;
}

const byteIds = Int32Array.from({ length: 256 }, (_, byte) => byte);

/** The plain twin: as long as there is one, merge the leftmost pair of the lowest rank. */
function plainEncode(bytes: readonly number[], merges: readonly Merge[]): number[] {
  const ids = [...bytes];
  for (;;) {
    const rank = merges.findIndex(({ left, right }) => leftmost(ids, left, right) >= 0);
    if (rank < 0) return ids;
    const { left, right, id } = merges[rank]!;
    ids.splice(leftmost(ids, left, right), 2, id);
  }
}

function leftmost(ids: readonly number[], left: number, right: number): number {
  return ids.findIndex((id, at) => id === left && ids[at + 1] === right);
}

function encode(encoder: BytePairEncoder, bytes: readonly number[]): number[] {
  const output = new IdList();
  encoder.encode(Uint8Array.from(bytes), 0, bytes.length, output);
  return [...output.toArray()];
}

function tableOf(merges: readonly Merge[]): MergeTable {
  const table = new MergeTable();
  for (const { left, right, id } of merges) table.add(left, right, id);
  return table;
}

/** Merges over bytes 0-2 and the tokens that earlier merges made, in any order of use. */
const someMerges = fc.array(fc.tuple(fc.nat(), fc.nat()), { minLength: 1, maxLength: 20 }).map((choices) => {
  const symbols = [0, 1, 2];
  const merges: Merge[] = [];
  for (const [a, b] of choices) {
    const left = symbols[a % symbols.length]!;
    const right = symbols[b % symbols.length]!;
    if (merges.some((merge) => merge.left === left && merge.right === right)) continue;
    merges.push({ left, right, id: 1000 + merges.length });
    symbols.push(999 + merges.length);
  }
  return merges;
});

describe("BytePairEncoder", () => {
  test("it merges pieces of all lengths as the plain twin does, first and again from the cache", () => {
    const bytes = fc.array(fc.integer({ min: 0, max: 2 }), { minLength: 1, maxLength: 150, size: "max" });
    fc.assert(
      fc.property(someMerges, fc.array(bytes, { minLength: 1, maxLength: 8 }), (merges, pieces) => {
        const encoder = new BytePairEncoder(byteIds, tableOf(merges));
        for (const piece of [...pieces, ...pieces]) {
          expect(encode(encoder, piece)).toEqual(plainEncode(piece, merges));
        }
      }),
      { numRuns: 300 },
    );
  });

  test("a run of one byte merges from the left, on both sides of every length bound", () => {
    const merges = [
      { left: 7, right: 7, id: 300 },
      { left: 300, right: 300, id: 301 },
      { left: 301, right: 7, id: 302 },
    ];
    const encoder = new BytePairEncoder(byteIds, tableOf(merges));
    for (let length = 1; length <= 140; length++) {
      const piece = new Array<number>(length).fill(7);
      expect(encode(encoder, piece)).toEqual(plainEncode(piece, merges));
    }
  });

  test("the cache starts afresh when it is full and never gives the ids of another piece", () => {
    const merges = [{ left: 0x31, right: 0x30, id: 300 }];
    const encoder = new BytePairEncoder(byteIds, tableOf(merges));
    const utf8 = new TextEncoder();
    const output = new IdList();
    for (let number = 0; number < 300_000; number++) {
      const piece = utf8.encode((number % 140_000).toString());
      output.clear();
      encoder.encode(piece, 0, piece.length, output);
      if (number % 1009 === 0) expect([...output.toArray()]).toEqual(plainEncode([...piece], merges));
    }
  });

  test("the cache stays below 12 MB, whatever the pieces", () => {
    const utf8 = new TextEncoder();
    const output = new IdList();
    for (const length of [6, 64]) {
      const encoder = new BytePairEncoder(byteIds, new MergeTable());
      let largest = 0;
      for (let number = 0; number < 300_000; number++) {
        const piece = utf8.encode(number.toString().padStart(length, "="));
        output.clear();
        encoder.encode(piece, 0, piece.length, output);
        largest = Math.max(largest, encoder.cacheSizeBytes);
      }
      expect(largest).toBeGreaterThan(3_000_000);
      expect(largest).toBeLessThan(12_000_000);
    }
  });

  test("a long piece takes time in proportion to its length, give or take a logarithm", () => {
    const merges = Array.from({ length: 12 }, (_, rank) => {
      const part = rank === 0 ? 0x61 : 999 + rank;
      return { left: part, right: part, id: 1000 + rank };
    });
    const encoder = new BytePairEncoder(byteIds, tableOf(merges));
    const output = new IdList();
    const start = performance.now();
    encoder.encode(new Uint8Array(2 ** 20).fill(0x61), 0, 2 ** 20, output);
    expect([...output.toArray()]).toEqual(new Array<number>(2 ** 8).fill(1011));
    expect(performance.now() - start).toBeLessThan(30_000);
  });
});

describe("IdList", () => {
  test("it keeps what was pushed, over growth", () => {
    const list = new IdList();
    const source = new IdList();
    for (let id = 0; id < 700; id++) source.push(id);
    list.push(-1);
    list.pushRange(source, 100, 700);
    expect(list.length).toBe(601);
    expect([...list.toArray()]).toEqual([-1, ...Array.from({ length: 600 }, (_, at) => at + 100)]);
    list.clear();
    expect(list.toArray()).toHaveLength(0);
  });
});
