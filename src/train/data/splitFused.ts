/**
 * Splits, at random, tokens that join punctuation with the line breaks after it.
 *
 * A prompt rarely ends with a line break; a model that always saw the joint token would find its last token odd.
 *
 * Source: DeepSeek-V3 report, section 4.1 (token boundary bias); the share is not published.
 */
import type { Tokenizer } from "../../text/index.ts";

export function splitFusedTokens(
  ids: Int32Array,
  tokenizer: Tokenizer,
  rate: number,
  random: () => number,
): Int32Array {
  if (rate === 0) return ids;
  const result: number[] = [];
  for (const id of ids) {
    if (!tokenizer.fusedPunctuation(id) || random() >= rate) {
      result.push(id);
      continue;
    }
    const [punctuation, lineBreaks] = tokenizer.splitFused(id);
    result.push(...punctuation, ...lineBreaks);
  }
  return Int32Array.from(result);
}
