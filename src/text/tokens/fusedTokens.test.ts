import { describe, expect, test } from "vitest";
import { findFusedTokens } from "./fusedTokens.ts";
import { TokenBytes } from "./tokenBytes.ts";

function cutOf(token: string | Uint8Array): number | undefined {
  const bytes = typeof token === "string" ? new TextEncoder().encode(token) : token;
  return findFusedTokens(new TokenBytes([bytes])).get(0);
}

describe("findFusedTokens", () => {
  test.each([
    [".\n", 1],
    [".\n\n", 1],
    [");\r\n", 2],
    [" {\n", 2],
    ["。\n", 3],
    ["…”\r", 6],
    ["€\n", 3],
    ["😀\n", 4],
  ])("%j is cut behind byte %i", (token, cut) => {
    expect(cutOf(token)).toBe(cut);
  });

  test.each([
    "\n",
    " \n",
    "  .\n",
    "a\n",
    "a.\n",
    ".\na",
    ".\n.",
    ".",
    "1\n",
    "\t;\n",
    ".\u2028",
    "\u0301\n",
  ])("%j is no such token", (token) => {
    expect(cutOf(token)).toBeUndefined();
  });

  test("the last bytes of a mark and a line break are one", () => {
    expect(cutOf(Uint8Array.of(0x80, 0x82, 0x0a))).toBe(2);
  });

  test("ids that mean nothing are passed over", () => {
    const tokens = new TokenBytes([undefined, new TextEncoder().encode("!\n"), undefined]);
    expect([...findFusedTokens(tokens)]).toEqual([[1, 1]]);
  });
});
