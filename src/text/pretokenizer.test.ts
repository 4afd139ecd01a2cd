import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { plainPieces } from "../../test/support/plainPretokenizer.ts";
import { v3TokenizerJson } from "../../test/support/v3Tokenizer.ts";
import { PieceScanner, preTokenizerPatterns } from "./pretokenizer.ts";

const scanner = new PieceScanner();

function pieces(text: string): string[] {
  const bytes = new TextEncoder().encode(text);
  const found: string[] = [];
  for (let start = 0; start < bytes.length; ) {
    const end = scanner.pieceEnd(bytes, start);
    // Fatal: a piece that begins or ends inside a character throws.
    found.push(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes.subarray(start, end)));
    start = end;
  }
  return found;
}

/** At least one character of each class, and those that sit on the border of two. */
const telling = [
  ..."aZé中あ・゙か\u3040龥\u9fa61½٣ \t\n\r\u0085\u00a0\u2028\ufeff\u200b\u0000!._'$€…😀\u0301\u0378𠀀한",
];

describe("preTokenizerPatterns", () => {
  test("they are those of the released tokenizer.json", () => {
    const file = JSON.parse(v3TokenizerJson) as {
      pre_tokenizer: { pretokenizers: { pattern?: { Regex: string } }[] };
    };
    const released = file.pre_tokenizer.pretokenizers.slice(0, 3).map(({ pattern }) => pattern?.Regex);
    expect(preTokenizerPatterns).toEqual(released);
  });
});

describe("PieceScanner", () => {
  test.each<[string, string[]]>([
    ["Hello world", ["Hello", " world"]],
    ["123456", ["123", "456"]],
    ["1234", ["123", "4"]],
    ["don't", ["don", "'t"]],
    ["a\u0301!?b", ["a\u0301", "!?", "b"]],
    ["x = (y)\n\n", ["x", " =", " (", "y", ")\n\n"]],
    ["a  b", ["a", " ", " b"]],
    ["a  1", ["a", "  ", "1"]],
    ["a  中", ["a", "  ", "中"]],
    [" \n \n  x", [" \n \n", " ", " x"]],
    ["ア・イ", ["ア", "・", "イ"]],
    ["!abc", ["!abc"]],
    ["!été", ["!", "été"]],
    ["\u200b\u200ba", ["\u200b", "\u200ba"]],
    ["\u0085\u0085b", ["\u0085", "\u0085b"]],
    ["\ufeff \ufeff", ["\ufeff", " ", "\ufeff"]],
    ["龥\u9fa6", ["龥", "\u9fa6"]],
  ])("%j is cut as %j", (text, expected) => {
    expect(pieces(text)).toEqual(expected);
  });

  test("it cuts every string of up to three telling characters as the three patterns do", () => {
    const check = (text: string): void => {
      const [ours, plain] = [pieces(text), plainPieces(text)];
      if (ours.join("\u{10ffff}") !== plain.join("\u{10ffff}"))
        expect(ours, JSON.stringify(text)).toEqual(plain);
    };
    for (const a of telling) {
      for (const b of telling) for (const c of telling) check(a + b + c);
    }
  });

  test("it cuts longer strings of telling characters as the three patterns do", () => {
    const text = fc
      .array(fc.constantFrom(...telling), { minLength: 4, maxLength: 24 })
      .map((all) => all.join(""));
    fc.assert(
      fc.property(text, (sample) => {
        expect(pieces(sample)).toEqual(plainPieces(sample));
      }),
      { numRuns: 5000 },
    );
  });

  test("it cuts arbitrary strings as the three patterns do, lone surrogates included", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 60 }), (sample) => {
        expect(pieces(sample)).toEqual(plainPieces(sample));
      }),
      { numRuns: 2000 },
    );
    fc.assert(
      fc.property(fc.uint16Array({ maxLength: 40 }), (units) => {
        const sample = String.fromCharCode(...units);
        expect(pieces(sample)).toEqual(plainPieces(sample));
      }),
      { numRuns: 500 },
    );
    expect(pieces("a\ud800 \udc00b")).toEqual(["a", "\ufffd", " \ufffd", "b"]);
  });

  test("a megabyte of blanks, of line breaks or of one mark takes time in proportion", () => {
    for (const unit of [" ", "\n ", "\u3000", "-", "\u200b", "\u200b ", "\u0301", "1"]) {
      const bytes = new TextEncoder().encode(unit.repeat(1_000_000 / unit.length));
      const start = performance.now();
      let at = 0;
      while (at < bytes.length) at = scanner.pieceEnd(bytes, at);
      expect(at).toBe(bytes.length);
      expect(performance.now() - start).toBeLessThan(30_000);
    }
  });
});
