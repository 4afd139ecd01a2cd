/**
 * V3's pre-tokenizer: cuts text into the pieces inside which BPE merges.
 *
 * By definition it is three regular-expression splits, one after the other, each applied to every piece
 * of the one before ("isolated": matches and the text between them both become pieces). Three passes of
 * a regex engine cost more than the merging itself, so this file reads UTF-8 once and decides by code
 * point class where the piece that starts here ends. The test keeps it equal to the three patterns.
 *
 * Source: interop.md 4.1; the classes are in codePointClasses.ts.
 */

import {
  ASCII_LETTER,
  ASCII_PUNCTUATION,
  CJK,
  CodePointClasses,
  LETTER,
  LINE_BREAK,
  MARK,
  NUMBER,
  OTHER,
  PUNCTUATION,
  SPACE,
  WHITE_SPACE,
} from "./codePointClasses.ts";

/**
 * The three patterns, character by character as tokenizer.json has them (CR and LF stand unescaped).
 *
 * For JavaScript take the `u` flag and read `\s` as `\p{White_Space}`.
 */
export const preTokenizerPatterns: readonly [string, string, string] = [
  "\\p{N}{1,3}",
  "[一-龥\u3040-ゟ゠-ヿ]+",
  "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+" +
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
];

// Sets of classes, one bit each. A class of the other kind of segment (class ^ segment >= CJK) is in none.
const WORD = (1 << LETTER) | (1 << ASCII_LETTER) | (1 << MARK);
const PUNCTUATIONS = (1 << PUNCTUATION) | (1 << ASCII_PUNCTUATION);
const BLANKS = (1 << WHITE_SPACE) | (1 << SPACE) | (1 << LINE_BREAK);

/** Finds piece after piece in valid UTF-8. Needs nothing but the place where a piece starts. */
export class PieceScanner {
  private readonly classes: CodePointClasses = new CodePointClasses();

  /** Where the piece that starts at `start` ends. `start` < bytes.length is the end of the piece before. */
  pieceEnd(bytes: Uint8Array, start: number): number {
    const first = this.classAt(bytes, start);
    // The first two patterns cut the text into segments of numbers, of CJK, and of all else; the third
    // one sees each segment alone, so that its end is an end of text to `\s+(?!\S)`.
    const segment = first & CJK;
    const next = start + widthAt(bytes, start);
    switch (first - segment) {
      case NUMBER:
        return this.endOfNumber(bytes, next);
      case LETTER:
      case ASCII_LETTER:
      case MARK:
        return this.endOfRun(bytes, next, segment, WORD);
      case ASCII_PUNCTUATION:
        if (this.classAt(bytes, next) === ASCII_LETTER) {
          return this.endOfRun(bytes, next, segment, 1 << ASCII_LETTER);
        }
        return this.endOfPunctuation(bytes, next, segment);
      case PUNCTUATION:
        return this.endOfPunctuation(bytes, next, segment);
      case SPACE:
        if (this.isAt(bytes, next, segment, PUNCTUATIONS)) return this.endOfPunctuation(bytes, next, segment);
        return this.endOfBlank(bytes, start, next, segment);
      case WHITE_SPACE:
        return this.endOfBlank(bytes, start, next, segment);
      case LINE_BREAK:
        return this.endOfWhiteSpace(bytes, start, segment);
      default:
        return this.endOfOther(bytes, next, segment);
    }
  }

  /** `\p{N}{1,3}` after its first number. */
  private endOfNumber(bytes: Uint8Array, second: number): number {
    if (this.classAt(bytes, second) !== NUMBER) return second;
    const third = second + widthAt(bytes, second);
    return this.classAt(bytes, third) === NUMBER ? third + widthAt(bytes, third) : third;
  }

  /** ` ?[\p{P}\p{S}]+[\r\n]*` after the space or the first mark. */
  private endOfPunctuation(bytes: Uint8Array, from: number, segment: number): number {
    const end = this.endOfRun(bytes, from, segment, PUNCTUATIONS);
    return this.endOfRun(bytes, end, segment, 1 << LINE_BREAK);
  }

  /** White space but for line breaks may lead a word: `[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+`. */
  private endOfBlank(bytes: Uint8Array, start: number, next: number, segment: number): number {
    if (this.isAt(bytes, next, segment, WORD)) return this.endOfRun(bytes, next, segment, WORD);
    return this.endOfWhiteSpace(bytes, start, segment);
  }

  /** `\s*[\r\n]+|\s+(?!\S)|\s+`: up to the last line break, or all but the last blank, or all. */
  private endOfWhiteSpace(bytes: Uint8Array, start: number, segment: number): number {
    let at = start;
    let last = start;
    let endOfLastBreak = -1;
    let current = this.classAt(bytes, at) ^ segment;
    while (((1 << current) & BLANKS) !== 0) {
      last = at;
      at += widthAt(bytes, at);
      if (current === LINE_BREAK) endOfLastBreak = at;
      current = this.classAt(bytes, at) ^ segment;
    }
    if (endOfLastBreak >= 0) return endOfLastBreak;
    const isSegmentEnd = at === bytes.length || current >= CJK || current === NUMBER;
    return isSegmentEnd || last === start ? at : last;
  }

  /** What no alternative matches stays together, up to a character that may lead a word. */
  private endOfOther(bytes: Uint8Array, second: number, segment: number): number {
    if (this.isAt(bytes, second, segment, WORD)) return this.endOfRun(bytes, second, segment, WORD);
    let at = second;
    while (this.isAt(bytes, at, segment, 1 << OTHER)) {
      const next = at + widthAt(bytes, at);
      if (this.isAt(bytes, next, segment, WORD)) return at;
      at = next;
    }
    return at;
  }

  private endOfRun(bytes: Uint8Array, from: number, segment: number, set: number): number {
    let at = from;
    while (this.isAt(bytes, at, segment, set)) at += widthAt(bytes, at);
    return at;
  }

  private isAt(bytes: Uint8Array, at: number, segment: number, set: number): boolean {
    return ((1 << (this.classAt(bytes, at) ^ segment)) & set) !== 0;
  }

  /** The class of the code point at `at`, 0 behind the end of the text. */
  private classAt(bytes: Uint8Array, at: number): number {
    if (at >= bytes.length) return 0;
    const lead = bytes[at]!;
    return lead < 0x80 ? this.classes.table[lead]! : this.wideClassAt(bytes, at, lead);
  }

  private wideClassAt(bytes: Uint8Array, at: number, lead: number): number {
    let codePoint = 0;
    if (lead < 0xe0) {
      codePoint = ((lead & 0x1f) << 6) | (bytes[at + 1]! & 0x3f);
    } else if (lead < 0xf0) {
      codePoint = ((lead & 0x0f) << 12) | ((bytes[at + 1]! & 0x3f) << 6) | (bytes[at + 2]! & 0x3f);
    } else {
      codePoint =
        ((lead & 0x07) << 18) |
        ((bytes[at + 1]! & 0x3f) << 12) |
        ((bytes[at + 2]! & 0x3f) << 6) |
        (bytes[at + 3]! & 0x3f);
    }
    return this.classes.of(codePoint);
  }
}

/** How many bytes the code point at `at` takes. */
function widthAt(bytes: Uint8Array, at: number): number {
  const lead = bytes[at]!;
  if (lead < 0x80) return 1;
  if (lead < 0xe0) return 2;
  return lead < 0xf0 ? 3 : 4;
}
