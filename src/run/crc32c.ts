/**
 * CRC-32C (Castagnoli), the checksum of TFRecord files. Node's `zlib.crc32` is the other polynomial.
 *
 * Source: RFC 3720, section 12.1 and appendix B.4.
 */
const polynomial = 0x82f63b78; // 0x1edc6f41 with its bits reversed

const table = Uint32Array.from({ length: 256 }, (_, byte) => {
  let remainder = byte;
  for (let bit = 0; bit < 8; bit++) remainder = (remainder >>> 1) ^ (remainder & 1 ? polynomial : 0);
  return remainder;
});

/** @returns the checksum as an unsigned 32-bit number */
export function crc32c(bytes: Uint8Array): number {
  let remainder = 0xffffffff;
  for (const byte of bytes) remainder = (remainder >>> 8) ^ table[(remainder ^ byte) & 0xff]!;
  return (remainder ^ 0xffffffff) >>> 0;
}
