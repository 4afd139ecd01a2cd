import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { PairCounts } from "./pairCounts.ts";

const byteIds = Int32Array.from({ length: 256 }, (_, byte) => byte);

/** The words as the plain twin holds them. */
interface Word {
  ids: number[];
  readonly weight: number;
}

const someWords = fc.array(
  fc.record({
    ids: fc.array(fc.integer({ min: 0, max: 2 }), { minLength: 1, maxLength: 30 }),
    weight: fc.integer({ min: 1, max: 4 }),
  }),
  { minLength: 1, maxLength: 6 },
);

function countsOf(words: readonly Word[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { ids, weight } of words) {
    for (let at = 0; at + 1 < ids.length; at++) {
      const pair = `${ids[at]} ${ids[at + 1]}`;
      counts.set(pair, (counts.get(pair) ?? 0) + weight);
    }
  }
  return counts;
}

function mergeAll(words: readonly Word[], left: number, right: number, id: number): void {
  for (const word of words) {
    const merged: number[] = [];
    for (let at = 0; at < word.ids.length; at++) {
      const isPair = word.ids[at] === left && word.ids[at + 1] === right;
      merged.push(isPair ? id : word.ids[at]!);
      if (isPair) at++;
    }
    word.ids = merged;
  }
}

describe("PairCounts", () => {
  test("the best pair has the largest true count after every merge, down to the last", () => {
    fc.assert(
      fc.property(someWords, (records) => {
        const words = records.map(({ ids, weight }): Word => ({ ids: [...ids], weight }));
        const counts = new PairCounts();
        for (const { ids, weight } of words) counts.addWord(Uint8Array.from(ids), byteIds, weight);
        for (let id = 1000; ; id++) {
          const truth = countsOf(words);
          const best = counts.popBest();
          if (best === undefined) {
            expect(truth.size).toBe(0);
            break;
          }
          expect(best.count).toBe(truth.get(`${best.left} ${best.right}`));
          expect(best.count).toBe(Math.max(...truth.values()));
          for (const _ of counts.merge(best, id));
          mergeAll(words, best.left, best.right, id);
        }
      }),
      { numRuns: 500 },
    );
  });

  test("of equal counts the smaller left id comes first, then the smaller right id", () => {
    const counts = new PairCounts();
    for (const word of [
      [5, 1],
      [2, 9],
      [2, 3],
    ]) {
      counts.addWord(Uint8Array.from(word), byteIds, 7);
    }
    const order = [counts.popBest(), counts.popBest(), counts.popBest(), counts.popBest()];
    expect(order.map((pair) => pair && [pair.left, pair.right])).toEqual([[2, 3], [2, 9], [5, 1], undefined]);
  });

  test("a merge of many positions offers to pause", () => {
    const counts = new PairCounts();
    for (let word = 0; word < 10_000; word++) counts.addWord(Uint8Array.of(1, 2), byteIds, 1);
    const best = counts.popBest()!;
    expect([...counts.merge(best, 1000)]).toHaveLength(2);
    expect(counts.popBest()).toBeUndefined();
  });

  test("one byte alone has no pair", () => {
    const counts = new PairCounts();
    counts.addWord(Uint8Array.of(7), byteIds, 100);
    expect(counts.popBest()).toBeUndefined();
  });
});
