import { beforeAll, describe, expect, test } from "vitest";
import { type Tokenizer, trainTokenizer } from "../../text/index.ts";
import { uniforms } from "./random.ts";
import { splitFusedTokens } from "./splitFused.ts";

const text = "A whale sings.\nIt dives!\n\nWho listens?\nThe calf: it sleeps.\n".repeat(40);
let tokenizer: Tokenizer;
let encoded: Int32Array;
let fused: number;

beforeAll(async () => {
  tokenizer = await trainTokenizer([text], { vocabSize: 300 });
  encoded = tokenizer.encode(text);
  fused = encoded.filter((id) => tokenizer.fusedPunctuation(id)).length;
});

describe("splitFusedTokens", () => {
  test("has something to split here", () => {
    expect(fused).toBeGreaterThan(100);
  });

  test("changes nothing at rate 0", () => {
    expect(splitFusedTokens(encoded, tokenizer, 0, () => 0)).toEqual(encoded);
  });

  test("leaves no joint token at rate 1", () => {
    const split = splitFusedTokens(encoded, tokenizer, 1, uniforms(0, "split", 0));
    expect(split.some((id) => tokenizer.fusedPunctuation(id))).toBe(false);
    expect(split.length).toBeGreaterThanOrEqual(encoded.length + fused);
  });

  test.each([0, 0.1, 0.5, 1])("keeps the text, byte for byte, at rate %d", (rate) => {
    const split = splitFusedTokens(encoded, tokenizer, rate, uniforms(1, "split", 0));
    expect(tokenizer.decode(split)).toBe(text);
  });

  test("splits about as many as the rate says", () => {
    let left = 0;
    for (let document = 0; document < 30; document++) {
      const split = splitFusedTokens(encoded, tokenizer, 0.1, uniforms(2, "split", document));
      left += split.filter((id) => tokenizer.fusedPunctuation(id)).length;
    }
    const share = 1 - left / (30 * fused);
    // 4,800 draws: standard deviation 0.0043.
    expect(Math.abs(share - 0.1)).toBeLessThan(0.025);
  });

  test("leaves alone what joins nothing, and asks chance only about what does", () => {
    let asked = 0;
    splitFusedTokens(encoded, tokenizer, 0.5, () => {
      asked++;
      return 0.9;
    });
    expect(asked).toBe(fused);
    const words = tokenizer.encode("whale sings whale");
    expect(splitFusedTokens(words, tokenizer, 1, () => 0)).toEqual(words);
  });
});
