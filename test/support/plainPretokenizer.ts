/**
 * The plain twin of src/text/pretokenizer.ts: three regular-expression splits, one after the other, as
 * the definition says. Every match and every text between two matches is a piece.
 */
import { preTokenizerPatterns } from "../../src/text/pretokenizer.ts";

// JavaScript's \s has U+FEFF and lacks U+0085; the file means Unicode White_Space.
const patterns = preTokenizerPatterns.map(
  (pattern) =>
    new RegExp(pattern.replaceAll("\\s", "\\p{White_Space}").replaceAll("\\S", "\\P{White_Space}"), "gu"),
);

export function plainPieces(text: string): string[] {
  // A lone surrogate is U+FFFD in UTF-8, which the scanner reads.
  const wellFormed = text.replaceAll(/\p{Surrogate}/gu, "\ufffd");
  let pieces = wellFormed === "" ? [] : [wellFormed];
  for (const pattern of patterns) pieces = pieces.flatMap((piece) => isolate(piece, pattern));
  return pieces;
}

function isolate(text: string, pattern: RegExp): string[] {
  const pieces: string[] = [];
  let end = 0;
  for (const match of text.matchAll(pattern)) {
    if (match.index > end) pieces.push(text.slice(end, match.index));
    pieces.push(match[0]);
    end = match.index + match[0].length;
  }
  if (end < text.length) pieces.push(text.slice(end));
  return pieces;
}
