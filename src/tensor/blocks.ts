/**
 * A whole weight as E4M3 with one scale per 128x128 block, on the host: the form in which checkpoints hold it.
 *
 * W[n, k] = code * scale[n / 128, k / 128]; the files call that factor `weight_scale_inv`. Blocks at the edges are
 * short: ceil(N / 128) by ceil(K / 128) scales whatever the remainder. The kernel quantizeWeight gives the same
 * codes and scales in panels.
 *
 * Checkpoints of billions of weights pass through here: amax and codes are taken from the bits of an f32, five
 * times faster than number by number, and equal to e4m3FromNumber and e4m3ToNumber, their plain twins.
 */
import { NonFiniteError } from "../base/index.ts";
import { e4m3ToNumber, TILE, tileScale, tilesOf } from "./fp8.ts";

export interface BlockCodes {
  /** [N, K] E4M3 */
  readonly codes: Uint8Array;
  /** [ceil(N / 128), ceil(K / 128)] */
  readonly scales: Float32Array;
}

/**
 * @param weights     [N, K] row-major
 * @param name        of the tensor, for the error
 * @param powerOfTwo  scales 2^n, as DeepSeek-V3.1 stores them; default plain ones
 * @throws            {NonFiniteError} if a weight is NaN or infinite: a checkpoint must not carry it on
 */
export function quantizeBlocks(
  weights: ArrayLike<number>,
  N: number,
  K: number,
  name: string,
  powerOfTwo: boolean = false,
): BlockCodes {
  const given = weights instanceof Float32Array ? weights : Float32Array.from(weights);
  const codes = new Uint8Array(N * K);
  const scales = new Float32Array(tilesOf(N) * tilesOf(K));
  const numbers = new Float32Array(TILE * TILE);
  for (let block = 0; block < scales.length; block++) {
    const from = { n: Math.floor(block / tilesOf(K)) * TILE, k: (block % tilesOf(K)) * TILE };
    const [rows, columns] = [Math.min(TILE, N - from.n), Math.min(TILE, K - from.k)];
    const start = from.n * K + from.k;
    for (let n = 0; n < rows; n++)
      numbers.set(given.subarray(start + n * K, start + n * K + columns), n * columns);
    const amax = greatest(numbers, rows * columns);
    if (!Number.isFinite(amax)) throw nonFinite(name, [from.n, from.k], amax);
    const scale = tileScale(amax, "f8e4m3", { powerOfTwo, floor: 0 });
    scales[block] = scale;
    for (let i = 0; i < rows * columns; i++) numbers[i] = numbers[i]! / scale;
    for (let n = 0; n < rows; n++) castRow(numbers, n * columns, columns, codes, start + n * K);
  }
  return { codes, scales };
}

/** The greatest magnitude of the first `count` numbers; NaN or infinite if one of them is. */
function greatest(numbers: Float32Array, count: number): number {
  const bits = new Int32Array(numbers.buffer);
  let top = 0;
  for (let i = 0; i < count; i++) top = Math.max(top, bits[i]! & 0x7fffffff);
  return new Float32Array(Int32Array.of(top).buffer)[0]!;
}

/** Bits of 2^-6, the least normal E4M3. */
const LEAST_NORMAL = 0x3c800000;

/** Casts finite f32 numbers to E4M3: nearest, ties to even, at most 448. */
function castRow(numbers: Float32Array, from: number, count: number, codes: Uint8Array, to: number): void {
  const bits = new Int32Array(numbers.buffer);
  for (let i = 0; i < count; i++) {
    const sign = (bits[from + i]! >>> 24) & 0x80;
    const magnitude = bits[from + i]! & 0x7fffffff;
    if (magnitude < LEAST_NORMAL) {
      // In steps of 2^-9, to the nearest even: 2^52 leaves a double no bit for a fraction.
      codes[to + i] = sign | (Math.abs(numbers[from + i]!) * 512 + 2 ** 52 - 2 ** 52);
      continue;
    }
    // 20 of 23 bits of the mantissa go, half of what they hold and the tie's odd bit are added; the exponent's bias
    // goes from 127 to 7.
    const code = ((magnitude + 0x7ffff + ((magnitude >> 20) & 1)) >> 20) - (120 << 3);
    codes[to + i] = sign | Math.min(code, 0x7e);
  }
}

/** The f32 weights [N, K] that codes and scales stand for. */
export function dequantizeBlocks({ codes, scales }: BlockCodes, N: number, K: number): Float32Array {
  const values = Float32Array.from({ length: 256 }, (_, code) => e4m3ToNumber(code));
  const weights = new Float32Array(N * K);
  for (let n = 0; n < N; n++) {
    const row = Math.floor(n / TILE) * tilesOf(K);
    for (let k = 0; k < K; ) {
      const scale = scales[row + k / TILE]!;
      const end = Math.min(k + TILE, K);
      for (; k < end; k++) weights[n * K + k] = values[codes[n * K + k]!]! * scale;
    }
  }
  return weights;
}

function nonFinite(name: string, [n, k]: readonly [number, number], amax: number): NonFiniteError {
  return new NonFiniteError(`${name} holds ${amax} in the block of 128x128 that begins at [${n}, ${k}]`, {
    why: "FP8 has no scale for a block with NaN or infinity, and codes made from it would hide the damage",
    fix: "go back to an earlier checkpoint; the run's events say at which step the weights left the finite numbers",
    fields: { name, row: n, column: k },
  });
}
