import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { byteTokenizer } from "../../text/index.ts";
import { fimEncode } from "./fim.ts";
import { uniforms } from "./random.ts";

const tokenizer = byteTokenizer();
const ids = tokenizer.fim!;

/** Cut points from a list instead of chance. */
const fixed =
  (...values: number[]): (() => number) =>
  () =>
    values.shift()!;

interface Parts {
  readonly prefix: string;
  readonly suffix: string;
  readonly middle: string;
}

/** What stands between the markers; fails unless each is there once, in the published order. */
function partsOf(encoded: Int32Array): Parts {
  const at = [ids.beginId, ids.holeId, ids.endId].map((id) => encoded.indexOf(id));
  for (const id of [ids.beginId, ids.holeId, ids.endId])
    expect(encoded.filter((found) => found === id)).toHaveLength(1);
  expect(at[0]).toBe(0);
  expect(at[1]).toBeLessThan(at[2]!);
  return {
    prefix: tokenizer.decode(encoded.subarray(1, at[1])),
    suffix: tokenizer.decode(encoded.subarray(at[1]! + 1, at[2])),
    middle: tokenizer.decode(encoded.subarray(at[2]! + 1)),
  };
}

const texts = fc.string({ unit: "grapheme", maxLength: 40 });

describe("fimEncode", () => {
  test("keeps every character: prefix, middle and suffix are the text again", async () => {
    await fc.assert(
      fc.asyncProperty(texts, fc.nat(), async (text, seed) => {
        const { prefix, suffix, middle } = partsOf(
          await fimEncode(text, tokenizer, ids, uniforms(seed, "fim", 0)),
        );
        expect(prefix + middle + suffix).toBe(text);
      }),
      { numRuns: 60 },
    );
  });

  test("puts the suffix before the middle, so that the gap is filled last", async () => {
    const encoded = await fimEncode("abcdef", tokenizer, ids, fixed(0.3, 0.7));
    expect(partsOf(encoded)).toEqual({ prefix: "ab", middle: "cd", suffix: "ef" });
    expect(tokenizer.decode(encoded)).toBe("<｜fim▁begin｜>ab<｜fim▁hole｜>ef<｜fim▁end｜>cd");
  });

  test("takes the two cut points in either order", async () => {
    const [one, two] = [
      await fimEncode("abcdef", tokenizer, ids, fixed(0.3, 0.7)),
      await fimEncode("abcdef", tokenizer, ids, fixed(0.7, 0.3)),
    ];
    expect(one).toEqual(two);
  });

  test.each([
    [0, 0, { prefix: "", middle: "", suffix: "abc" }],
    [0, 0.999, { prefix: "", middle: "abc", suffix: "" }],
    [0.999, 0.999, { prefix: "abc", middle: "", suffix: "" }],
  ])("can cut at either end: %d and %d", async (a, b, wanted) => {
    expect(partsOf(await fimEncode("abc", tokenizer, ids, fixed(a, b)))).toEqual(wanted);
  });

  test("never cuts a character into its halves", async () => {
    for (let seed = 0; seed < 20; seed++) {
      const encoded = await fimEncode("🐋鯨🐳", tokenizer, ids, uniforms(seed, "fim", 0));
      expect(tokenizer.decode(encoded)).not.toContain("\ufffd");
    }
  });

  test("gives an empty text its three markers", async () => {
    const encoded = await fimEncode("", tokenizer, ids, fixed(0.5, 0.5));
    expect(Array.from(encoded)).toEqual([ids.beginId, ids.holeId, ids.endId]);
  });

  test("cuts everywhere: each of the four places in three letters is used for prefix and suffix", async () => {
    const prefixes = new Set<string>();
    const suffixes = new Set<string>();
    for (let seed = 0; seed < 80; seed++) {
      const { prefix, suffix } = partsOf(await fimEncode("abc", tokenizer, ids, uniforms(seed, "fim", 7)));
      prefixes.add(prefix);
      suffixes.add(suffix);
    }
    expect([...prefixes].sort()).toEqual(["", "a", "ab", "abc"]);
    expect([...suffixes].sort()).toEqual(["", "abc", "bc", "c"]);
  });

  test("does not take the markers' texts in a document for markers", async () => {
    const text = "<｜fim▁hole｜> is written so";
    const encoded = await fimEncode(text, tokenizer, ids, fixed(0.5, 0.5));
    expect(encoded.filter((id) => id === ids.holeId)).toHaveLength(1);
  });

  test("stops at a signal", async () => {
    const signal = AbortSignal.abort(new Error("stop"));
    await expect(fimEncode("x".repeat(200_000), tokenizer, ids, fixed(0.2, 0.8), signal)).rejects.toThrow(
      "stop",
    );
  });
});
