import { describe, expect, test } from "vitest";
import { crc32c } from "./crc32c.ts";

describe("crc32c", () => {
  // RFC 3720, appendix B.4, and the check value of the CRC catalogue.
  test.each([
    ["32 zeros", new Uint8Array(32), 0x8a9136aa],
    ["32 bytes 0xff", new Uint8Array(32).fill(0xff), 0x62a8ab43],
    ["0 to 31", Uint8Array.from({ length: 32 }, (_, i) => i), 0x46dd794e],
    ["31 to 0", Uint8Array.from({ length: 32 }, (_, i) => 31 - i), 0x113fdb5c],
    ["the digits 1 to 9", Buffer.from("123456789"), 0xe3069283],
    ["nothing", new Uint8Array(0), 0],
  ])("of %s is the published value", (_, bytes, value) => {
    expect(crc32c(bytes)).toBe(value);
  });
});
