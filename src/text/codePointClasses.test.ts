import { describe, expect, test } from "vitest";
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

describe("CodePointClasses", () => {
  const classes = new CodePointClasses();

  test.each([
    ["a", ASCII_LETTER],
    ["é", LETTER],
    ["ª", LETTER],
    ["\u0301", MARK],
    ["_", ASCII_PUNCTUATION],
    ["$", ASCII_PUNCTUATION],
    ["…", PUNCTUATION],
    ["€", PUNCTUATION],
    ["😀", PUNCTUATION],
    ["\ufffd", PUNCTUATION],
    [" ", SPACE],
    ["\t", WHITE_SPACE],
    ["\u0085", WHITE_SPACE],
    ["\u00a0", WHITE_SPACE],
    ["\u2028", WHITE_SPACE],
    ["\r", LINE_BREAK],
    ["\n", LINE_BREAK],
    ["7", NUMBER],
    ["½", NUMBER],
    ["〇", NUMBER],
    ["\ufeff", OTHER],
    ["\u200b", OTHER],
    ["\u0378", OTHER],
    ["龥", LETTER + CJK],
    ["\u9fa6", LETTER],
    ["・", PUNCTUATION + CJK],
    ["\u3099", MARK + CJK],
    ["\u3040", OTHER + CJK],
    ["\u3100", OTHER],
    ["한", LETTER],
  ])("%j has class %i", (character, expected) => {
    expect(classes.of(character.codePointAt(0)!)).toBe(expected);
  });

  test("every code point is of the class whose Unicode property it has, and of one only", () => {
    const properties: readonly (readonly [RegExp, readonly number[]])[] = [
      [/\p{L}/u, [LETTER, ASCII_LETTER]],
      [/\p{M}/u, [MARK]],
      [/\p{N}/u, [NUMBER]],
      [/[\p{P}\p{S}]/u, [PUNCTUATION, ASCII_PUNCTUATION]],
      [/\p{White_Space}/u, [WHITE_SPACE, SPACE, LINE_BREAK]],
      [/[^\p{L}\p{M}\p{N}\p{P}\p{S}\p{White_Space}]/u, [OTHER]],
    ];
    // Beyond plane 1 the properties come in blocks; a stride that is no power of two meets them all.
    const wrong: number[] = [];
    for (let codePoint = 0; codePoint <= 0x10ffff; codePoint += codePoint < 0x20000 ? 1 : 37) {
      const base = classes.of(codePoint) % CJK;
      const character = String.fromCodePoint(codePoint);
      const matching = properties.filter(([pattern]) => pattern.test(character));
      if (matching.length !== 1 || !matching[0]![1].includes(base)) wrong.push(codePoint);
    }
    expect(wrong).toEqual([]);
  });
});
