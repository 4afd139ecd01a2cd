/**
 * Random numbers by counter: number i of a stream is a function of (seed, stream, i) and nothing else.
 *
 * So the order of initialisation, the number of threads and the backend never show in a model's
 * weights. Everything here is sums and products of doubles in a fixed order: `Math.log` and its kin
 * may differ between engines in the last place, native code has neither, and both must agree bit for bit.
 *
 * Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), section 3.3, for
 * Philox4x32-10; Box and Muller (1958) for the normal distribution.
 */
import { defineKernel, type Floats, type Kernel } from "../kernel.ts";
import type { Tensor } from "../tensor.ts";

/** Four words of 32 bits. */
export type Words = readonly [number, number, number, number];

const TWO_32 = 2 ** 32;

/** Four random words for one counter under one key. */
export function philox(counter: Words, key: readonly [number, number]): Words {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < 10; round++) {
    const high0 = multiplyHigh(c0, 0xd2511f53);
    const low0 = Math.imul(c0, 0xd2511f53) >>> 0;
    const high1 = multiplyHigh(c2, 0xcd9e8d57);
    const low1 = Math.imul(c2, 0xcd9e8d57) >>> 0;
    c0 = (high1 ^ c1 ^ k0) >>> 0;
    c1 = low1;
    c2 = (high0 ^ c3 ^ k1) >>> 0;
    c3 = low0;
    // The golden ratio and sqrt(3) - 1, as 32-bit fractions.
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/** Four random words of block `block` in stream `stream` of seed `seed`, each up to 2^53. */
export function blockWords(seed: number, stream: number, block: number): Words {
  const high = (value: number): number => Math.floor(value / TWO_32);
  return philox([block >>> 0, high(block), high(seed), high(stream)], [seed >>> 0, stream >>> 0]);
}

/** The upper half of the 64-bit product, from halves of 16 bits: doubles hold 53 bits exactly. */
function multiplyHigh(a: number, b: number): number {
  const [aLow, aHigh] = [a & 0xffff, a >>> 16];
  const [bLow, bHigh] = [b & 0xffff, b >>> 16];
  const middle = aHigh * bLow + Math.floor((aLow * bLow) / 0x10000);
  return Math.floor((aHigh * bHigh * 0x10000 + middle + aLow * bHigh) / 0x10000) >>> 0;
}

export const randomNormalKernel: Kernel = defineKernel({
  name: "randomNormal",
  operands: { y: "out" },
  params: ["n", "std", "seed", "stream"],
  reference({ y }, { n, std, seed, stream }) {
    for (let block = 0; 4 * block < n; block++) {
      const words = blockWords(seed, stream, block);
      writePair(y, 4 * block, n, std, words[0], words[1]);
      writePair(y, 4 * block + 2, n, std, words[2], words[3]);
    }
  },
});

/** Box-Muller: one word for the radius, one for the angle, two independent normal numbers. */
function writePair(y: Floats, i: number, n: number, std: number, radius: number, angle: number): void {
  const r = Math.sqrt(-2 * logUnit(radius));
  const [cos, sin] = cosSinTurn(angle);
  if (i < n) y[i] = r * cos * std;
  if (i + 1 < n) y[i + 1] = r * sin * std;
}

/** ln((word + 1/2) / 2^32): never 0 or 1 inside the logarithm. */
export function logUnit(word: number): number {
  // 2 word + 1 = m 2^e with m in [sqrt(1/2), sqrt(2)), so that s below is small.
  let e = 32 - Math.clz32(word);
  let m = (2 * word + 1) / (e === 32 ? TWO_32 : (1 << e) >>> 0);
  if (m * 0.5 >= Math.SQRT1_2) {
    m *= 0.5;
    e++;
  }
  // ln m = 2 artanh s = 2 s (1 + s^2 / 3 + s^4 / 5 + ...), s^2 <= 0.0295: the term after the last is 2e-18.
  const s = (m - 1) / (m + 1);
  const square = s * s;
  let p = 1 / 21;
  for (let denominator = 19; denominator >= 3; denominator -= 2) p = p * square + 1 / denominator;
  const twice = s + s;
  return (e - 33) * Math.LN2 + (twice + twice * (square * p));
}

/** Coefficients of a^14 .. a^2 in sin(a) / a, and of a^16 .. a^2 in cos(a). */
const SIN: readonly number[] = [-1307674368000, 6227020800, -39916800, 362880, -5040, 120, -6];
const COS: readonly number[] = [20922789888000, -87178291200, 479001600, -3628800, 40320, -720, 24, -2];

/** Cosine and sine of 2 pi word / 2^32. */
export function cosSinTurn(word: number): readonly [number, number] {
  // The nearest quarter turn comes off exactly, in integers; |a| <= pi / 4 remains.
  const quarter = ((word + 0x20000000) >>> 0) >>> 30;
  const a = ((word - quarter * 0x40000000) | 0) * (Math.PI / 0x80000000);
  const square = a * a;
  const sin = a + a * (square * taylor(SIN, square));
  const cos = 1 + square * taylor(COS, square);
  switch (quarter) {
    case 0:
      return [cos, sin];
    case 1:
      return [-sin, cos];
    case 2:
      return [-cos, -sin];
    default:
      return [sin, -cos];
  }
}

/** Horner's rule over reciprocals of signed factorials; the next term would be below 5e-17. */
function taylor(factorials: readonly number[], square: number): number {
  return factorials.reduce((p, factorial) => p * square + 1 / factorial, 0);
}

/**
 * Fills y with independent normal numbers of mean 0; not for tensors on a tape.
 *
 * Parameters take streams of their own, so that adding one changes no other.
 *
 * @param std     standard deviation
 * @param seed    whole number, 0 to 2^53
 * @param stream  whole number, 0 to 2^53
 */
export function randomNormal(y: Tensor, std: number, seed: number, stream: number): void {
  y.device.run(randomNormalKernel, { y }, { n: y.size, std, seed, stream });
}

export const randomKernels: readonly Kernel[] = [randomNormalKernel];
