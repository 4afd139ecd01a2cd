import { expect, test } from "vitest";
import { makeTokenizerCorpus } from "../support/tokenizerCorpus.ts";
import { compareIds, makePair } from "../support/tokenizerPeer.ts";

// Takes 5 to 20 seconds, nearly all in the peer; tokenizer.soak.test.ts compares all five megabytes.
test("V3's ids equal Hugging Face's on two sevenths of English, Chinese, code and random Unicode", () => {
  const parts = makeTokenizerCorpus().filter((_, index) => index % 7 < 2);
  expect(new Set(parts.map(({ kind }) => kind)).size).toBe(4);
  expect(compareIds(makePair(), parts).bytes).toBeGreaterThan(1_000_000);
}, 120_000);
