/** Numbers to bytes and back, little-endian, as they lie in a tensor of a dtype. */
import { BYTES_PER_ELEMENT, bf16FromNumber, bf16ToNumber, type Dtype } from "./dtype.ts";
import { e4m3FromNumber, e4m3ToNumber, packE5m6, unpackE5m6 } from "./fp8.ts";
import type { Values } from "./kernel.ts";

/** bf16, f8e4m3 and e5m6 arrive widened to f32. */
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
      return Float32Array.from(copy, e4m3ToNumber);
    case "e5m6":
      return Float32Array.from(unpackE5m6(copy));
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
      return Uint8Array.from(values, e4m3FromNumber);
    case "e5m6": {
      const bytes = new Uint8Array(values.length * BYTES_PER_ELEMENT.e5m6);
      packE5m6(values, bytes);
      return bytes;
    }
    case "f32":
      return new Uint8Array(Float32Array.from(values).buffer);
  }
}
