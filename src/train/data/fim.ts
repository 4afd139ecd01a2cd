/**
 * Fill in the middle: a document reordered as prefix, suffix, middle, so that a model learns to fill a gap by
 * ordinary next-token prediction.
 *
 *   <|fim_begin|> prefix <|fim_hole|> suffix <|fim_end|> middle
 *
 * Source: DeepSeek-V3 report, section 4.1: PSM at document level, before packing, rate 0.1. Cut points are two
 * uniform positions between characters.
 */
import type { FimIds, Tokenizer } from "../../text/index.ts";

/** @param random  uniform numbers in [0, 1) */
export function fimEncode(text: string, tokenizer: Tokenizer, ids: FimIds, random: () => number): Int32Array {
  const characters = Array.from(text);
  const cut = (): number => Math.floor(random() * (characters.length + 1));
  const [a, b] = [cut(), cut()];
  const [from, to] = [Math.min(a, b), Math.max(a, b)];
  const part = (start: number, end?: number): Int32Array =>
    tokenizer.encode(characters.slice(start, end).join(""));
  return Int32Array.from([
    ids.beginId,
    ...part(0, from),
    ids.holeId,
    ...part(to),
    ids.endId,
    ...part(from, to),
  ]);
}
