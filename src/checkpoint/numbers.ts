/** What files hold, as f32: exact for every dtype but F64, which is rounded. */
import { bf16ToNumber } from "../tensor/index.ts";
import type { DiskDtype } from "./safetensors.ts";

/** dtypes that a model's weights may have on disk. */
export const READABLE: readonly DiskDtype[] = ["F32", "BF16", "F16", "F64"];

export function widen(bytes: Uint8Array, dtype: DiskDtype): Float32Array {
  const aligned = bytes.byteOffset % 8 === 0 ? bytes : bytes.slice();
  const { buffer, byteOffset, byteLength } = aligned;
  switch (dtype) {
    case "F32":
      return new Float32Array(buffer, byteOffset, byteLength / 4);
    case "F64":
      return Float32Array.from(new Float64Array(buffer, byteOffset, byteLength / 8));
    case "BF16":
      return Float32Array.from(new Uint16Array(buffer, byteOffset, byteLength / 2), bf16ToNumber);
    case "F16":
      return Float32Array.from(new Uint16Array(buffer, byteOffset, byteLength / 2), halfToNumber);
    default:
      throw new RangeError(`${dtype} does not hold weights`);
  }
}

function halfToNumber(code: number): number {
  const sign = code & 0x8000 ? -1 : 1;
  const exponent = (code >> 10) & 0x1f;
  const fraction = code & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
