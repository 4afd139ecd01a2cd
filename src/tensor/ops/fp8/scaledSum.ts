/**
 * One output of an FP8 product: exact products, summed in short blocks that are scaled as they join an f32 sum.
 *
 * ```text
 * partial = sum of the block's products, begun at 0        acc = fma(partial, scale of its tile, acc), begun at 0
 * ```
 *
 * Blocks have `promotion` products and never cross a tile of 128. Tensor cores of the H800 keep about 14 bits while they
 * sum, which is why DeepSeek promotes; `accumulatorBits` 14 computes as they do.
 *
 * Source: DeepSeek-V3 report, section 3.3.2, Figure 7.
 */
import { invariant } from "../../../base/index.ts";
import { TILE } from "../../fp8.ts";

/** Products that one instruction of the tensor core takes. */
const GROUP = 32;
const FRACTION_BITS = 14;

// Where a float is looked at as bits; nothing is kept here between calls.
const single: Float32Array = new Float32Array(1);
const singleBits: Uint32Array = new Uint32Array(single.buffer);
const double: Float64Array = new Float64Array(1);
const doubleBits: BigInt64Array = new BigInt64Array(double.buffer);

/** How a product sums. */
export interface Accumulation {
  /** Products of a block: 16, 32, 64 or 128. 0 with 14 bits: never promoted, every product scaled before it is summed. */
  readonly promotion: number;
  /** 0: f32. 14: as the H800's tensor cores. */
  readonly accumulatorBits: number;
}

/**
 * @param products  exact products, in the order of the summed dimension
 * @param scaleOf   the f32 scale of tile number `tile`
 */
export function scaledSum(
  products: Float64Array,
  scaleOf: (tile: number) => number,
  { promotion, accumulatorBits }: Accumulation,
): number {
  const isEmulated = accumulatorBits === FRACTION_BITS;
  invariant(isEmulated || accumulatorBits === 0, `no accumulator of ${accumulatorBits} bits is known`);
  if (isEmulated && promotion === 0) {
    return partialByTensorCore(
      products.map((product, k) => Math.fround(product * scaleOf(Math.floor(k / TILE)))),
    );
  }
  invariant([16, 32, 64, TILE].includes(promotion), `blocks of ${promotion} products are not known`);
  let acc = 0;
  for (let start = 0; start < products.length; start += promotion) {
    const block = products.subarray(start, start + promotion);
    const partial = isEmulated ? partialByTensorCore(block) : Math.fround(plainSum(block));
    acc = fusedMultiplyAdd(partial, scaleOf(Math.floor(start / TILE)), acc);
  }
  return acc;
}

function plainSum(products: Float64Array): number {
  let sum = 0;
  for (const product of products) sum += product;
  return sum;
}

/**
 * The sum as an H800 computes it: 32 products and what was summed before are cut, towards minus infinity, to multiples
 * of one power of two, 14 bits below the largest of them; their sum is cut to 14 fraction bits again.
 *
 * Source: DeepSeek-V3 report, section 3.5.2 (products are aligned by right shifts, about 14 bits are kept).
 */
function partialByTensorCore(products: Float64Array): number {
  let sum = 0;
  for (let start = 0; start < products.length; start += GROUP) {
    const terms = [sum, ...products.subarray(start, start + GROUP)];
    if (terms.some(Number.isNaN)) return Number.NaN;
    const unit = lastBit(Math.max(...terms.map(Math.abs)));
    const cut = terms.reduce((total, term) => total + Math.floor(term / unit) * unit, 0);
    const rest = Math.max(unit, lastBit(Math.abs(cut)));
    sum = Math.floor(cut / rest) * rest;
  }
  return sum;
}

/** The value of the last of 14 fraction bits of `value`; never below the smallest normal f32. */
function lastBit(value: number): number {
  return 2 ** Math.max(exponentOf(value) - FRACTION_BITS, -126);
}

/** floor(log2 |value|) of an f32, -127 for zero. */
function exponentOf(value: number): number {
  single[0] = value;
  return ((singleBits[0]! >>> 23) & 0xff) - 127;
}

/** a * b + c of three f32, rounded once to f32. */
export function fusedMultiplyAdd(a: number, b: number, c: number): number {
  const product = a * b; // 48 bits: exact
  const sum = product + c;
  const virtual = sum - product;
  const error = product - (sum - virtual) + (c - virtual);
  // Rounded to odd, the 53 bits cannot mislead the rounding to 24.
  return Math.fround(error === 0 || Number.isNaN(error) ? sum : toOdd(sum, error));
}

/** Of the two doubles around `sum + error` the one with an odd last bit. */
function toOdd(sum: number, error: number): number {
  double[0] = sum;
  if ((doubleBits[0]! & 1n) === 1n) return sum;
  doubleBits[0] = doubleBits[0]! + (error > 0 === sum > 0 ? 1n : -1n);
  return double[0]!;
}
