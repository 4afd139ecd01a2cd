/**
 * A whole weight as E4M3 with one scale per 128x128 block, on the host: the form in which checkpoints hold it.
 *
 * W[n, k] = code * scale[n / 128, k / 128]; the files call that factor `weight_scale_inv`. Blocks at the edges are
 * short: ceil(N / 128) by ceil(K / 128) scales whatever the remainder. The kernel quantizeWeight gives the same
 * codes and scales in panels.
 */
import { NonFiniteError } from "../base/index.ts";
import { e4m3FromNumber, e4m3ToNumber, TILE, tileScale, tilesOf } from "./fp8.ts";

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
  const codes = new Uint8Array(N * K);
  const scales = new Float32Array(tilesOf(N) * tilesOf(K));
  for (let block = 0; block < scales.length; block++) {
    const from = { n: Math.floor(block / tilesOf(K)) * TILE, k: (block % tilesOf(K)) * TILE };
    const to = { n: Math.min(from.n + TILE, N), k: Math.min(from.k + TILE, K) };
    let amax = 0;
    for (let n = from.n; n < to.n; n++) {
      for (let i = n * K + from.k; i < n * K + to.k; i++) amax = Math.max(amax, Math.abs(weights[i]!));
    }
    if (!Number.isFinite(amax)) throw nonFinite(name, [from.n, from.k], amax);
    const scale = tileScale(amax, "f8e4m3", { powerOfTwo, floor: 0 });
    scales[block] = scale;
    for (let n = from.n; n < to.n; n++) {
      for (let i = n * K + from.k; i < n * K + to.k; i++)
        codes[i] = e4m3FromNumber(Math.fround(weights[i]! / scale));
    }
  }
  return { codes, scales };
}

/** The f32 weights [N, K] that codes and scales stand for. */
export function dequantizeBlocks({ codes, scales }: BlockCodes, N: number, K: number): Float32Array {
  const weights = new Float32Array(N * K);
  for (let n = 0; n < N; n++) {
    const row = Math.floor(n / TILE) * tilesOf(K);
    for (let k = 0; k < K; k++) {
      weights[n * K + k] = e4m3ToNumber(codes[n * K + k]!) * scales[row + Math.floor(k / TILE)]!;
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
