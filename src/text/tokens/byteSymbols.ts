/**
 * The 256 byte symbols: one printable character for each byte, as vocabularies of byte-level BPE write
 * their tokens. Printable bytes of Latin-1 stand for themselves; the other 68 take U+0100 and up in
 * byte order (0x20 is "Ġ", 0x0A is "Ċ").
 *
 * Source: interop.md 4.1, verified on V3's tokenizer.json.
 */

import { invariant } from "../../base/index.ts";

/** `byteSymbols[byte]` is the character that stands for it. */
export const byteSymbols: readonly string[] = makeByteSymbols();

/** `bytesBySymbol[codeUnit]` is the byte that a symbol stands for, 0xFFFF where it is no symbol. */
const bytesBySymbol: Uint16Array = new Uint16Array(0x144).fill(0xffff);
for (const [byte, symbol] of byteSymbols.entries()) bytesBySymbol[symbol.charCodeAt(0)] = byte;

/** The bytes in the order in which V3 gives them ids: by the code point of their symbol. */
export const bytesInIdOrder: Uint8Array = Uint8Array.from(
  byteSymbols
    .map((symbol, byte) => ({ byte, codePoint: symbol.charCodeAt(0) }))
    .sort((a, b) => a.codePoint - b.codePoint)
    .map(({ byte }) => byte),
);

/** A token's bytes as a vocabulary writes them. */
export function bytesToSymbols(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += byteSymbols[byte];
  return text;
}

/** The bytes behind a vocabulary entry; undefined if a character of it is no byte symbol. */
export function symbolsToBytes(symbols: string): Uint8Array | undefined {
  const bytes = new Uint8Array(symbols.length);
  for (let index = 0; index < symbols.length; index++) {
    const byte = bytesBySymbol[symbols.charCodeAt(index)] ?? 0xffff;
    if (byte === 0xffff) return undefined;
    bytes[index] = byte;
  }
  return bytes;
}

function makeByteSymbols(): string[] {
  const symbols: string[] = [];
  let numUnprintable = 0;
  for (let byte = 0; byte < 256; byte++) {
    const isPrintable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
    symbols.push(String.fromCharCode(isPrintable ? byte : 0x100 + numUnprintable));
    if (!isPrintable) numUnprintable++;
  }
  invariant(numUnprintable === 68, `${numUnprintable} bytes have no symbol of their own, expected 68`);
  return symbols;
}
