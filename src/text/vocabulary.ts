/**
 * The vocabulary that we make ourselves, in V3's form: 3 specials, 256 bytes, merges as id 259 + rank,
 * and last the FIM and chat tokens.
 */

import { v3TokenizerConfig } from "./file/tokenizerConfig.ts";
import { MergeTable } from "./tables/mergeTable.ts";
import { Tokenizer } from "./tokenizer.ts";
import { type AddedToken, leadingSpecials, trailingSpecials } from "./tokens/addedTokens.ts";
import { bytesInIdOrder } from "./tokens/byteSymbols.ts";
import { TokenBytes } from "./tokens/tokenBytes.ts";

/** The id of the merge of rank 0. */
export const FIRST_MERGE_ID: number = leadingSpecials.length + bytesInIdOrder.length;

/** How many ids of a vocabulary are no merges: 264. */
export const NUM_FIXED_IDS: number = FIRST_MERGE_ID + trailingSpecials.length;

/** The id of each byte in a vocabulary of V3's form. */
export function v3ByteIds(): Int32Array {
  const ids = new Int32Array(256);
  for (const [index, byte] of bytesInIdOrder.entries()) ids[byte] = leadingSpecials.length + index;
  return ids;
}

/** A tokenizer without merges: each byte is a token. */
export function byteTokenizer(): Tokenizer {
  return tokenizerFromMerges([]);
}

/**
 * @param pairs  in rank order; ids of earlier tokens, so that pair `rank` becomes id 259 + rank
 */
export function tokenizerFromMerges(pairs: readonly (readonly [left: number, right: number])[]): Tokenizer {
  const utf8 = new TextEncoder();
  const tokens = leadingSpecials.map((text) => utf8.encode(text));
  for (const byte of bytesInIdOrder) tokens.push(Uint8Array.of(byte));
  const merges = new MergeTable();
  for (const [left, right] of pairs) {
    merges.add(left, right, tokens.length);
    tokens.push(concatenate(tokens[left]!, tokens[right]!));
  }
  const addedTokens: AddedToken[] = leadingSpecials.map((content, id) => ({
    id,
    content,
    special: true,
    normalized: false,
  }));
  for (const content of trailingSpecials) {
    addedTokens.push({ id: tokens.length, content, special: false, normalized: true });
    tokens.push(utf8.encode(content));
  }
  return new Tokenizer({
    tokens: new TokenBytes(tokens),
    byteIds: v3ByteIds(),
    merges,
    addedTokens,
    config: v3TokenizerConfig,
  });
}

function concatenate(left: Uint8Array, right: Uint8Array): Uint8Array<ArrayBuffer> {
  const both = new Uint8Array(left.length + right.length);
  both.set(left);
  both.set(right, left.length);
  return both;
}
