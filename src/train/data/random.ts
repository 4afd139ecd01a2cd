/** Uniform numbers that depend on a seed and a place in the corpus alone: Philox, one stream per use. */
import { blockWords } from "../../tensor/index.ts";

/** What random numbers are used for; each use has streams of its own. */
const USES = { shuffle: 0x5401, fim: 0x5402, split: 0x5403 } as const;

/** @param index  the epoch, or the document */
export function uniforms(seed: number, use: keyof typeof USES, index: number): () => number {
  let block = 0;
  let words: readonly number[] = [];
  return () => {
    if (words.length === 0) words = [...blockWords(seed, USES[use] + index * 0x10000, block++)];
    const word = words[0]!;
    words = words.slice(1);
    return (word >>> 0) / 2 ** 32;
  };
}
