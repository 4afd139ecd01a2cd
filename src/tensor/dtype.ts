/**
 * What a tensor's bytes mean.
 *
 * f64 lives in the reference backend only, where oracles and gradient checks need it. f8e4m3 and e5m6 (./fp8.ts)
 * are what the FP8 recipe stores; e5m6 takes twelve bits, so its tensors have even sizes and their rows even widths.
 */
export type Dtype = "f32" | "bf16" | "f8e4m3" | "e5m6" | "i32" | "f64";

export const BYTES_PER_ELEMENT: Readonly<Record<Dtype, number>> = {
  f32: 4,
  bf16: 2,
  f8e4m3: 1,
  e5m6: 1.5,
  i32: 4,
  f64: 8,
};

/** The number by which a dtype travels to native code; native/kernels/src/args.rs has the same table. */
export const DTYPE_CODE: Readonly<Record<Dtype, number>> = {
  f32: 0,
  bf16: 1,
  f8e4m3: 2,
  i32: 3,
  f64: 4,
  e5m6: 5,
};

const scratchF32: Float32Array = new Float32Array(1);
const scratchBits: Uint32Array = new Uint32Array(scratchF32.buffer);

/** The bf16 nearest to `value`, ties to even; NaN stays a (quiet) NaN, overflow becomes infinity. */
export function bf16FromNumber(value: number): number {
  scratchF32[0] = value;
  const bits = scratchBits[0]!;
  if (Number.isNaN(value)) return (bits >>> 16) | 0x40;
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

export function bf16ToNumber(code: number): number {
  scratchBits[0] = code << 16;
  return scratchF32[0]!;
}
