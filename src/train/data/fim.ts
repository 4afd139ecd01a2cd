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

/**
 * @param random  uniform numbers in [0, 1)
 * @param signal  stops it: the promise rejects with the signal's reason
 */
export async function fimEncode(
  text: string,
  tokenizer: Tokenizer,
  ids: FimIds,
  random: () => number,
  signal?: AbortSignal,
): Promise<Int32Array> {
  const characters = Array.from(text);
  const cut = (): number => Math.floor(random() * (characters.length + 1));
  const [a, b] = [cut(), cut()];
  const [from, to] = [Math.min(a, b), Math.max(a, b)];
  const part = (start: number, end?: number): Promise<Int32Array> =>
    tokenizer.encodeInSlices(characters.slice(start, end).join(""), {}, signal);
  const [prefix, suffix, middle] = [await part(0, from), await part(to), await part(from, to)];
  return Int32Array.from([ids.beginId, ...prefix, ids.holeId, ...suffix, ids.endId, ...middle]);
}
