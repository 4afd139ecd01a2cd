/** What files hold, as f32: exact for every dtype but F64, which is rounded; and f32 as files hold it. */
import type { Values } from "../tensor/index.ts";
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
      return new Float32Array(new Float64Array(buffer, byteOffset, byteLength / 8));
    case "BF16":
      return bf16ToF32(new Uint16Array(buffer, byteOffset, byteLength / 2));
    case "F16":
      return halvesToF32(new Uint16Array(buffer, byteOffset, byteLength / 2));
    default:
      throw new RangeError(`${dtype} does not hold weights`);
  }
}

/** A loop over bits: Float32Array.from with a function takes twenty times as long, and models have billions. */
function bf16ToF32(codes: Uint16Array): Float32Array {
  const bits = new Uint32Array(codes.length);
  for (let i = 0; i < codes.length; i++) bits[i] = codes[i]! << 16;
  return new Float32Array(bits.buffer);
}

function halvesToF32(codes: Uint16Array): Float32Array {
  const values = new Float32Array(codes.length);
  for (let i = 0; i < codes.length; i++) values[i] = halfToNumber(codes[i]!);
  return values;
}

/** Little-endian f32. Masters in f64, as oracles have them, are rounded. */
export function toF32Bytes(values: Values): Uint8Array {
  const { buffer, byteOffset, byteLength } =
    values instanceof Float32Array ? values : Float32Array.from(values);
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** Little-endian bf16, rounded to nearest even; NaN stays NaN. */
export function toBf16Bytes(values: Float32Array): Uint8Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const rounded = new Uint16Array(values.length);
  for (let i = 0; i < bits.length; i++) {
    const value = bits[i]!;
    const isNan = (value & 0x7fffffff) > 0x7f800000;
    rounded[i] = isNan ? (value >>> 16) | 0x40 : (value + 0x7fff + ((value >>> 16) & 1)) >>> 16;
  }
  return new Uint8Array(rounded.buffer);
}

function halfToNumber(code: number): number {
  const sign = code & 0x8000 ? -1 : 1;
  const exponent = (code >> 10) & 0x1f;
  const fraction = code & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
