import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { StreamDecoder } from "./streamDecoder.ts";

/** Ids that are the bytes themselves. */
function byteDecoder(): StreamDecoder {
  return new StreamDecoder((id) => Uint8Array.of(id));
}

describe("StreamDecoder", () => {
  test("any bytes, one by one, give the text that they give together", () => {
    // Bytes that begin, continue and break characters are more frequent here than among all 256.
    const telling = fc.constantFrom(
      0x61,
      0x80,
      0xbf,
      0xc3,
      0xe4,
      0xef,
      0xbb,
      0xf0,
      0x9f,
      0xf4,
      0xff,
      0xed,
      0xa0,
    );
    fc.assert(
      fc.property(
        fc.array(fc.oneof(telling, fc.integer({ min: 0, max: 255 })), { maxLength: 40 }),
        (bytes) => {
          const decoder = byteDecoder();
          const text = bytes.map((byte) => decoder.push(byte)).join("") + decoder.end();
          expect(text).toBe(new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes)));
        },
      ),
      { numRuns: 2000 },
    );
  });

  test("a character comes with its last byte", () => {
    const decoder = byteDecoder();
    expect([...new TextEncoder().encode("é中😀")].map((byte) => decoder.push(byte))).toEqual([
      "",
      "é",
      "",
      "",
      "中",
      "",
      "",
      "",
      "😀",
    ]);
  });

  test("U+FEFF in front is text", () => {
    const decoder = byteDecoder();
    expect([0xef, 0xbb, 0xbf, 0x61].map((byte) => decoder.push(byte)).join("")).toBe("\ufeffa");
  });

  test("after the end it begins anew", () => {
    const decoder = byteDecoder();
    decoder.push(0xe4);
    expect(decoder.end()).toBe("\ufffd");
    expect(decoder.push(0x61) + decoder.end()).toBe("a");
  });
});
