import type { TokenBytes } from "./tokenBytes.ts";

// ` ?[\p{P}\p{S}]+[\r\n]*` of the pre-tokenizer makes them. A prompt that ends behind the mark, before its
// line break, is out of distribution for a model that saw the two as one token only (spec 2.3).
const fusedPattern = /^ ?[\p{P}\p{S}]+([\r\n]+)$/u;

/** The tokens that join punctuation with line breaks, and how many of their bytes are punctuation. */
export function findFusedTokens(tokens: TokenBytes): Map<number, number> {
  // Not fatal: the tail of a mark that lies in two tokens reads as U+FFFD, a symbol, and is one here too.
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const cuts = new Map<number, number>();
  for (let id = 0; id < tokens.size; id++) {
    if (!tokens.endsWithLineBreak(id)) continue;
    const bytes = tokens.of(id);
    const lineBreaks = fusedPattern.exec(decoder.decode(bytes))?.[1];
    if (lineBreaks !== undefined) cuts.set(id, bytes.length - lineBreaks.length);
  }
  return cuts;
}
