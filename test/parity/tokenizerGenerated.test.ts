/** Generated texts and ids: what Hugging Face's JavaScript library makes of them, ours makes too. */

import { Tokenizer as Peer } from "@huggingface/tokenizers";
import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import {
  type Tokenizer,
  trainTokenizer,
  writeTokenizerConfig,
  writeTokenizerJson,
} from "../../src/text/index.ts";
import { english } from "../support/tokenizerCorpus.ts";
import { makePair, type Pair } from "../support/tokenizerPeer.ts";

let v3: Pair;
let own: Pair;

beforeAll(async () => {
  v3 = makePair();
  const ours = await trainTokenizer([english().slice(0, 300_000)], { vocabSize: 1500 });
  own = { ours, peer: peerOf(ours) };
}, 60_000);

function peerOf(ours: Tokenizer): Peer {
  const file = JSON.parse(writeTokenizerJson(ours)) as object;
  return new Peer(file, JSON.parse(writeTokenizerConfig(ours)) as object);
}

const controls = [
  "<｜begin▁of▁sentence｜>",
  "<｜end▁of▁sentence｜>",
  "<｜User｜>",
  "<｜Assistant｜>",
  "<｜fim▁hole｜>",
  "<｜place▁holder▁no▁1｜>",
  "<｜place▁holder▁no▁12｜>",
  "<|EOT|>",
];
const words = [
  "the",
  " the",
  " States",
  "don't",
  "\n\n",
  " ",
  "  ",
  ".\n",
  "1776",
  "é",
  "中文",
  "<",
  "<｜",
  "｜>",
  "▁",
];
const mixedText = fc
  .array(
    fc.oneof(
      fc.constantFrom(...controls),
      fc.constantFrom(...words),
      fc.string({ unit: "binary", maxLength: 4 }),
    ),
  )
  .map((parts) => parts.join(""));

describe("the ids of texts with control tokens between and cut short", () => {
  test.each(["V3's", "our own"])("%s tokenizer", (which) => {
    const { ours, peer } = which === "our own" ? own : v3;
    fc.assert(
      fc.property(mixedText, fc.nat(), (text, cut) => {
        for (const part of [text, text.slice(cut % (text.length + 1))]) {
          // The peer hands lone surrogates on to be U+FFFD only behind its splits.
          if (/\p{Surrogate}/u.test(part)) continue;
          expect([...ours.encode(part, { allowSpecial: true })]).toEqual(
            peer.encode(part, { add_special_tokens: false }).ids,
          );
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe("the text of any ids", () => {
  test.each(["V3's", "our own"])("%s tokenizer", (which) => {
    const { ours, peer } = which === "our own" ? own : v3;
    const id = fc.integer({ min: 0, max: ours.vocabSize - 1 });
    // Bytes alone (3 to 258) and control tokens are where a decoder goes wrong.
    const ids = fc.array(
      fc.oneof(
        id,
        fc.integer({ min: 0, max: 258 }),
        fc.integer({ min: ours.vocabSize - 5, max: ours.vocabSize - 1 }),
      ),
      { minLength: 1, maxLength: 20 },
    );
    fc.assert(
      fc.property(ids, fc.boolean(), (ids, skipSpecial) => {
        expect(ours.decode(ids, { skipSpecial })).toBe(
          peer.decode(ids, { skip_special_tokens: skipSpecial }),
        );
      }),
      { numRuns: 300 },
    );
  });
});
