/**
 * The small floats of FP8 training, and the scale that fits a tile of numbers into them.
 *
 *   E4M3   1-4-3, bias 7:   subnormals in steps of 2^-9, greatest 448, no infinities, NaN 0x7f and 0xff
 *   E5M6   1-5-6, bias 15:  subnormals in steps of 2^-20, greatest 65024; the upper twelve bits of an f16
 *
 * Casting rounds to nearest even and saturates; what is infinite or NaN becomes NaN, never a silent 448.
 *
 * Source: DeepSeek-V3 report, section 3.3; the bias and packing of E5M6 are unpublished, these are ours.
 */

/** Numbers along one side of a tile. */
export const TILE = 128;

/** A tile of smaller numbers counts as zeros: its scale, and what is read with it, could be denormal, and kernels flush those. */
const LEAST_AMAX = 2 ** -80;

interface SmallFloat {
  readonly mantissaBits: number;
  /** Of the least normal number; subnormals share it. */
  readonly leastExponent: number;
  /** Code of the greatest finite number, without its sign. */
  readonly greatestCode: number;
  /** Every bit below the sign; the code of NaN. */
  readonly nan: number;
}

const E4M3: SmallFloat = { mantissaBits: 3, leastExponent: -6, greatestCode: 0x7e, nan: 0x7f };
const E5M6: SmallFloat = { mantissaBits: 6, leastExponent: -14, greatestCode: 0x7bf, nan: 0x7ff };

/** The greatest number of each format that a tile can be scaled into. */
export const GREATEST = { f8e4m3: 448, e5m6: 65024 } as const;
export type CodeDtype = keyof typeof GREATEST;

const scratchF64: Float64Array = new Float64Array(1);
const scratchF32: Float32Array = new Float32Array(scratchF64.buffer);
const scratchBits: Uint32Array = new Uint32Array(scratchF64.buffer);

function encode(value: number, format: SmallFloat): number {
  scratchF64[0] = value;
  const high = scratchBits[1]!;
  const sign = high >>> 31 === 1 ? format.nan + 1 : 0;
  if (!Number.isFinite(value)) return sign | format.nan;
  const exponent = Math.max(((high >>> 20) & 0x7ff) - 1023, format.leastExponent);
  // In steps of the binade, to the nearest even: 2^52 leaves a double no bit for a fraction.
  const steps = Math.abs(value) * 2 ** (format.mantissaBits - exponent) + 2 ** 52 - 2 ** 52;
  const code = (exponent - format.leastExponent) * 2 ** format.mantissaBits + steps;
  return sign | Math.min(code, format.greatestCode);
}

function decode(code: number, format: SmallFloat): number {
  const magnitude = code & format.nan;
  const sign = code > format.nan ? -1 : 1;
  const perBinade = 2 ** format.mantissaBits;
  const field = Math.floor(magnitude / perBinade);
  const fraction = (magnitude % perBinade) / perBinade;
  if (magnitude > format.greatestCode) {
    // Only a format with codes between the greatest and NaN has an infinity; nothing here writes it.
    return magnitude === format.greatestCode + 1 && magnitude !== format.nan
      ? sign * Number.POSITIVE_INFINITY
      : Number.NaN;
  }
  if (field === 0) return sign * fraction * 2 ** format.leastExponent;
  return sign * (1 + fraction) * 2 ** (field - 1 + format.leastExponent);
}

const E4M3_VALUES: Float32Array = Float32Array.from({ length: 256 }, (_, code) => decode(code, E4M3));
const E5M6_VALUES: Float32Array = Float32Array.from({ length: 4096 }, (_, code) => decode(code, E5M6));

/** The E4M3 code nearest to `value`, ties to even. */
export function e4m3FromNumber(value: number): number {
  return encode(value, E4M3);
}

export function e4m3ToNumber(code: number): number {
  return E4M3_VALUES[code]!;
}

/** The twelve-bit E5M6 code nearest to `value`, ties to even. */
export function e5m6FromNumber(value: number): number {
  return encode(value, E5M6);
}

export function e5m6ToNumber(code: number): number {
  return E5M6_VALUES[code]!;
}

/** Writes numbers as E5M6, two in three bytes: a | b << 12, little-endian. */
export function packE5m6(values: ArrayLike<number>, bytes: Uint8Array): void {
  for (let i = 0, at = 0; i < values.length; i += 2, at += 3) {
    const [a, b] = [e5m6FromNumber(values[i]!), e5m6FromNumber(values[i + 1]!)];
    bytes[at] = a & 0xff;
    bytes[at + 1] = (a >> 8) | ((b & 0xf) << 4);
    bytes[at + 2] = b >> 4;
  }
}

export function unpackE5m6(bytes: Uint8Array): Float64Array {
  const values = new Float64Array((bytes.length / 3) * 2);
  for (let i = 0, at = 0; i < values.length; i += 2, at += 3) {
    values[i] = e5m6ToNumber(bytes[at]! | ((bytes[at + 1]! & 0xf) << 8));
    values[i + 1] = e5m6ToNumber((bytes[at + 1]! >> 4) | (bytes[at + 2]! << 4));
  }
  return values;
}

/** 2^ceil(log2 of a positive f32), on its bits: a logarithm could round to the wrong integer. */
export function powerOfTwoCeil(scale: number): number {
  scratchF32[0] = scale;
  scratchBits[0] = (scratchBits[0]! + 0x7fffff) & 0x7f800000;
  return scratchF32[0]!;
}

export interface ScaleRule {
  readonly powerOfTwo: boolean;
  /** The least number that a tile is scaled by: 1e-4 for activations, 0 for weights and gradients. */
  readonly floor: number;
}

/**
 * The f32 by which a tile's numbers are divided before they are cast, and multiplied when they are read.
 *
 * @param amax  greatest magnitude in the tile; NaN or infinite gives NaN, which reaches the loss and is named there
 */
export function tileScale(amax: number, dtype: CodeDtype, { powerOfTwo, floor }: ScaleRule): number {
  if (!Number.isFinite(amax)) return Number.NaN;
  const top = Math.max(amax, Math.fround(floor));
  if (top < LEAST_AMAX) return 1;
  const scale = Math.fround(top / GREATEST[dtype]);
  return powerOfTwo ? powerOfTwoCeil(scale) : scale;
}

/** Tiles along a dimension; the last one may be short. */
export function tilesOf(length: number): number {
  return Math.ceil(length / TILE);
}
