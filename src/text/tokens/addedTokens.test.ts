import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type AddedToken, AddedTokenFinder, type Segment } from "./addedTokens.ts";

function added(id: number, content: string, normalized = false): AddedToken {
  return { id, content, special: true, normalized };
}

function joined(segments: readonly Segment[], tokens: readonly AddedToken[]): string {
  return segments
    .map((segment) =>
      "text" in segment ? segment.text : tokens.find(({ id }) => id === segment.id)!.content,
    )
    .join("");
}

describe("AddedTokenFinder", () => {
  test("the leftmost token wins, and of several at one place the longest", () => {
    const finder = new AddedTokenFinder([added(1, "ab"), added(2, "abc"), added(3, "bcd")]);
    expect(finder.split("xabcdab")).toEqual([{ text: "x" }, { id: 2 }, { text: "d" }, { id: 1 }]);
  });

  test("a longer token that does not come true gives way to the shorter one inside it", () => {
    const finder = new AddedTokenFinder([added(1, "ab"), added(2, "abcde")]);
    expect(finder.split("abcdabcde")).toEqual([{ id: 1 }, { text: "cd" }, { id: 2 }]);
  });

  test("tokens that are not normalized are found before those that are", () => {
    const finder = new AddedTokenFinder([added(1, "abc", true), added(2, "bc")]);
    expect(finder.split("abc")).toEqual([{ text: "a" }, { id: 2 }]);
  });

  test("text without tokens is one segment, and no text is none", () => {
    const finder = new AddedTokenFinder([added(1, "<x>")]);
    expect(finder.split("a < b > c <x")).toEqual([{ text: "a < b > c <x" }]);
    expect(finder.split("")).toEqual([]);
    expect(new AddedTokenFinder([]).split("a")).toEqual([{ text: "a" }]);
  });

  test("the segments joined are the text, and no text between contains a token", () => {
    const content = fc.string({ unit: fc.constantFrom("a", "b", "｜"), minLength: 1, maxLength: 3 });
    const text = fc.string({ unit: fc.constantFrom("a", "b", "｜", "😀") });
    fc.assert(
      fc.property(fc.uniqueArray(content, { maxLength: 5 }), text, (contents, text) => {
        const tokens = contents.map((content, id) => added(id, content, id % 2 === 1));
        const segments = new AddedTokenFinder(tokens).split(text);
        expect(joined(segments, tokens)).toBe(text);
        for (const segment of segments) {
          if ("text" in segment)
            expect(contents.some((content) => segment.text.includes(content))).toBe(false);
        }
      }),
      { numRuns: 500 },
    );
  });
});
