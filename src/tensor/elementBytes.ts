/** Numbers to bytes and back, little-endian, as they lie in a tensor of a dtype. */
import { BYTES_PER_ELEMENT, bf16FromNumber, bf16ToNumber, type Dtype } from "./dtype.ts";
import type { Values } from "./kernel.ts";

/** bf16 arrives widened to f32, f8e4m3 as codes. */
export function decodeBytes(bytes: Uint8Array, dtype: Dtype): Values {
  const copy = bytes.byteOffset % 8 === 0 ? bytes : bytes.slice();
  const length = copy.byteLength / BYTES_PER_ELEMENT[dtype];
  switch (dtype) {
    case "f64":
      return new Float64Array(copy.buffer, copy.byteOffset, length);
    case "i32":
      return new Int32Array(copy.buffer, copy.byteOffset, length);
    case "bf16":
      return Float32Array.from(new Uint16Array(copy.buffer, copy.byteOffset, length), bf16ToNumber);
    case "f8e4m3":
      return Int32Array.from(copy);
    case "f32":
      return new Float32Array(copy.buffer, copy.byteOffset, length);
  }
}

export function encodeBytes(values: ArrayLike<number>, dtype: Dtype): Uint8Array {
  switch (dtype) {
    case "f64":
      return new Uint8Array(Float64Array.from(values).buffer);
    case "i32":
      return new Uint8Array(Int32Array.from(values).buffer);
    case "bf16":
      return new Uint8Array(Uint16Array.from(values, bf16FromNumber).buffer);
    case "f8e4m3":
      return Uint8Array.from(values);
    case "f32":
      return new Uint8Array(Float32Array.from(values).buffer);
  }
}
