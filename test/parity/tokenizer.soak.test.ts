import { expect, test } from "vitest";
import { type CorpusPart, makeTokenizerCorpus } from "../support/tokenizerCorpus.ts";
import { compareIds, makePair } from "../support/tokenizerPeer.ts";

const corpus = makeTokenizerCorpus();
const pair = makePair();

test.each<CorpusPart["kind"]>(["english", "chinese", "code", "unicode"])(
  "V3's ids equal Hugging Face's on all of the %s",
  (kind) => {
    const parts = corpus.filter((part) => part.kind === kind);
    const { bytes, tokens } = compareIds(pair, parts);
    console.log(`${kind}: ${bytes} bytes, ${tokens} tokens, ${parts.length} parts: equal`);
    expect(bytes).toBeGreaterThan(500_000);
  },
  600_000,
);

test("the corpus has five megabytes", () => {
  expect(corpus.reduce((sum, { text }) => sum + Buffer.byteLength(text), 0)).toBeGreaterThan(5_000_000);
});
