import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { byteSymbols, bytesInIdOrder, bytesToSymbols, symbolsToBytes } from "./byteSymbols.ts";

describe("byteSymbols", () => {
  test("each byte has a symbol of its own", () => {
    expect(new Set(byteSymbols).size).toBe(256);
    expect(byteSymbols.every((symbol) => symbol.length === 1)).toBe(true);
  });

  test("space, line feed, DEL, no-break space and soft hyphen take their places behind U+0100", () => {
    expect([0x00, 0x0a, 0x20, 0x7f, 0xa0, 0xad].map((byte) => byteSymbols[byte])).toEqual([..."ĀĊĠġłŃ"]);
    expect(byteSymbols[0x41]).toBe("A");
    expect(byteSymbols[0xff]).toBe("ÿ");
  });

  test("no symbol is white space or a control, so that merges can be written as words", () => {
    expect(byteSymbols.filter((symbol) => /[\p{White_Space}\p{C}]/u.test(symbol))).toEqual([]);
  });
});

describe("bytesInIdOrder", () => {
  test("it is a permutation by the code point of the symbol", () => {
    const codePoints = Array.from(bytesInIdOrder, (byte) => byteSymbols[byte]!.codePointAt(0)!);
    expect(codePoints).toEqual([...codePoints].sort((a, b) => a - b));
    expect(new Set(bytesInIdOrder).size).toBe(256);
  });
});

describe("symbolsToBytes", () => {
  test("it undoes bytesToSymbols for all bytes", () => {
    fc.assert(
      fc.property(fc.uint8Array(), (bytes) => {
        expect(symbolsToBytes(bytesToSymbols(bytes))).toEqual(bytes);
      }),
    );
  });

  test.each(["a b", "｜", "\u00ad", "\u0144", "😀", "\uffff"])("%j is not written in symbols", (text) => {
    expect(symbolsToBytes(text)).toBeUndefined();
  });
});
