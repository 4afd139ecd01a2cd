/**
 * Which class of V3's pre-tokenizer a code point belongs to. pretokenizer.ts reads text through it.
 *
 * The classes come from the same Unicode properties that the three patterns name, so they follow the
 * Unicode version of the JavaScript engine, as the patterns themselves would.
 */

/** No letter, mark, number, punctuation, symbol or white space: controls, format, unassigned. */
export const OTHER = 1;
/** \p{L} without A-Z and a-z. */
export const LETTER = 2;
/** A-Z and a-z, which may follow one ASCII punctuation mark in a piece. */
export const ASCII_LETTER = 3;
/** \p{M} */
export const MARK = 4;
/** \p{P} and \p{S} outside ASCII. */
export const PUNCTUATION = 5;
/** The 32 punctuation marks and symbols of ASCII. */
export const ASCII_PUNCTUATION = 6;
/** White_Space but for the three below. It has U+0085 and lacks U+FEFF; JavaScript's \s errs on both. */
export const WHITE_SPACE = 7;
/** U+0020, the one that ` ?[\p{P}\p{S}]+` accepts. */
export const SPACE = 8;
/** CR and LF. */
export const LINE_BREAK = 9;
/** \p{N} */
export const NUMBER = 10;
/** Added to the class of a code point of the second pattern (CJK ideographs, hiragana, katakana). */
export const CJK = 16;

const cjk = /[一-龥぀-ゟ゠-ヿ]/u;
const classPatterns: readonly (readonly [RegExp, number])[] = [
  [/[A-Za-z]/u, ASCII_LETTER],
  [/[!-/:-@[-`{-~]/u, ASCII_PUNCTUATION],
  [/ /u, SPACE],
  [/[\r\n]/u, LINE_BREAK],
  [/\p{White_Space}/u, WHITE_SPACE],
  [/\p{N}/u, NUMBER],
  [/\p{L}/u, LETTER],
  [/\p{M}/u, MARK],
  [/[\p{P}\p{S}]/u, PUNCTUATION],
];

const PAGE_SIZE = 256;

export class CodePointClasses {
  /** Class by code point; 0 where the page has not been asked for. */
  readonly table: Uint8Array = new Uint8Array(0x110000);

  constructor() {
    this.fillPage(0);
  }

  /** The class of a code point. Hot loops read `table` first and come here for a 0. */
  of(codePoint: number): number {
    if (this.table[codePoint] === 0) this.fillPage(codePoint - (codePoint % PAGE_SIZE));
    return this.table[codePoint]!;
  }

  // Page by page, because matching all of Unicode takes a noticeable part of a program's start.
  private fillPage(first: number): void {
    for (let codePoint = first; codePoint < first + PAGE_SIZE; codePoint++) {
      const character = String.fromCodePoint(codePoint);
      const base = classPatterns.find(([pattern]) => pattern.test(character))?.[1] ?? OTHER;
      this.table[codePoint] = cjk.test(character) ? base + CJK : base;
    }
  }
}
