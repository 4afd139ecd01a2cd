import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { printable } from "./printable.ts";

describe("printable", () => {
  test("keeps tabs, line ends and every letter", () => {
    expect(printable("a\tb\nc é 鲸 🐋")).toBe("a\tb\nc é 鲸 🐋");
    expect(printable("a\r\nb")).toBe("a\nb");
  });

  test("leaves nothing by which a terminal could be commanded", () => {
    expect(printable("\u001b[2J\u009b31m\u0007\r\u0000\u007f")).toBe(
      "\ufffd[2J\ufffd31m\ufffd\ufffd\ufffd\ufffd",
    );
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        for (const letter of printable(text)) {
          const code = letter.codePointAt(0)!;
          const isControl = code < 32 || (code >= 127 && code < 160);
          expect(isControl && letter !== "\n" && letter !== "\t").toBe(false);
        }
        expect(printable(printable(text))).toBe(printable(text));
      }),
    );
  });
});
