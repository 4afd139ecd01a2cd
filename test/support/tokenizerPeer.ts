/** Our tokenizer and Hugging Face's JavaScript one, both with V3's released files. */
import { Tokenizer as Peer } from "@huggingface/tokenizers";
import { readTokenizer, type Tokenizer } from "../../src/text/index.ts";
import type { CorpusPart } from "./tokenizerCorpus.ts";
import { v3TokenizerConfigJson, v3TokenizerJson } from "./v3Tokenizer.ts";

export interface Pair {
  readonly ours: Tokenizer;
  readonly peer: Peer;
}

export function makePair(): Pair {
  return {
    ours: readTokenizer(v3TokenizerJson, v3TokenizerConfigJson),
    peer: new Peer(JSON.parse(v3TokenizerJson) as object, JSON.parse(v3TokenizerConfigJson) as object),
  };
}

/** How many bytes and tokens were equal; throws at the first token that differs. */
export function compareIds(
  { ours, peer }: Pair,
  parts: readonly CorpusPart[],
): { bytes: number; tokens: number } {
  const total = { bytes: 0, tokens: 0 };
  for (const [index, { kind, text }] of parts.entries()) {
    const got = ours.encode(text, { allowSpecial: true });
    const expected = peer.encode(text, { add_special_tokens: false }).ids;
    const length = Math.max(got.length, expected.length);
    for (let at = 0; at < length; at++) {
      if (got[at] === expected[at]) continue;
      const before = JSON.stringify(ours.decode(got.subarray(Math.max(0, at - 5), at + 3)));
      throw new Error(
        `part ${index} (${kind}), token ${at}: ${got[at]}, the peer has ${expected[at]}, near ${before}`,
      );
    }
    total.bytes += Buffer.byteLength(text);
    total.tokens += length;
  }
  return total;
}
