import { describe, expect, test } from "vitest";
import { TokenizerError } from "../../base/index.ts";
import { TokenBytes } from "./tokenBytes.ts";

describe("TokenBytes", () => {
  const tokens = new TokenBytes([Uint8Array.of(1, 2), undefined, Uint8Array.of(0x2e, 0x0a), undefined]);

  test("it gives the bytes of each id", () => {
    expect([...tokens.of(0)]).toEqual([1, 2]);
    expect([...tokens.of(2)]).toEqual([0x2e, 0x0a]);
    expect(tokens.size).toBe(4);
  });

  test.each([1, 3, 4, 5, -1, 0.5, Number.NaN])("id %d is a gap or outside, and an error", (id) => {
    expect(tokens.has(id)).toBe(false);
    expect(() => tokens.of(id)).toThrow(TokenizerError);
  });

  test("a gap behind a token that ends with a line break does not end with one", () => {
    expect([0, 1, 2, 3].map((id) => tokens.endsWithLineBreak(id))).toEqual([false, false, true, false]);
  });

  test("a thousand tokens of different lengths come back, over growth", () => {
    const list = Array.from({ length: 1000 }, (_, id) => new Uint8Array((id % 40) + 1).fill(id));
    const many = new TokenBytes(list);
    for (const [id, bytes] of list.entries()) expect(many.of(id)).toEqual(bytes);
  });
});
