import { expect, test } from "vitest";
import { makeRandom, normals } from "../../../../test/support/random.ts";
import { fusedMultiplyAdd, scaledSum } from "./scaledSum.ts";

/** The e4m3 value nearest to x, by its definition: multiples of a power of two that has three fraction bits. */
function e4m3(x: number): number {
  const exponent = Math.max(Math.floor(Math.log2(Math.abs(x) || 1e-9)), -6);
  const unit = 2 ** (exponent - 3);
  const [floor, rest] = [Math.floor(x / unit), x / unit - Math.floor(x / unit)];
  const isUp = rest > 0.5 || (rest === 0.5 && floor % 2 !== 0);
  return Math.max(-448, Math.min(448, (floor + (isUp ? 1 : 0)) * unit));
}

const one = (): number => 1;

/** max |error| / max |exact| over some outputs of N(0, 1) matrices. */
function error(K: number, outputs: number, promotion: number): number {
  let [worst, largest] = [0, 0];
  for (let i = 0; i < outputs; i++) {
    const [x, w] = [normals(K, 2 * i).map(e4m3), normals(K, 2 * i + 1).map(e4m3)];
    const products = x.map((value, k) => value * w[k]!);
    const exact = products.reduce((sum, product) => sum + product, 0);
    worst = Math.max(worst, Math.abs(scaledSum(products, one, { promotion, accumulatorBits: 14 }) - exact));
    largest = Math.max(largest, Math.abs(exact));
  }
  return worst / largest;
}

test("sums of 4,096 products in 14 bits are wrong by about 2 %, promoted every 128 by less than 0.1 %", () => {
  const [alone, promoted] = [error(4096, 150, 0), error(4096, 150, 128)];
  expect(alone).toBeGreaterThan(0.01);
  expect(alone).toBeLessThan(0.035);
  expect(promoted).toBeLessThan(0.001);
  expect(alone / promoted).toBeGreaterThan(20);
});

test("14 bits are cut towards minus infinity, below the largest term and below the sum", () => {
  const sum = (products: number[]): number =>
    scaledSum(Float64Array.from(products), one, { promotion: 128, accumulatorBits: 14 });
  expect(sum([1, 2 ** -14])).toBe(1 + 2 ** -14);
  expect(sum([1, 2 ** -15])).toBe(1);
  expect(sum([1, -(2 ** -15)])).toBe(1 - 2 ** -14);
  // 2 + 2^-14 fits neither its 14 fraction bits nor, by sign, the nearer neighbour.
  expect(sum([1, 1, 2 ** -14])).toBe(2);
  expect(sum([-1, -1, -(2 ** -14)])).toBe(-2 - 2 ** -13);
  // The sum of the first 32 is one of the next 33 terms.
  expect(sum([4096, ...new Array<number>(31).fill(0), 0.125])).toBe(4096);
  expect(Number.isNaN(sum([1, Number.NaN]))).toBe(true);
  expect(sum([])).toBe(0);
});

test("blocks are scaled as they join the sum, tiles by their own scale, the last block short", () => {
  const products = new Float64Array(300).fill(1);
  const scales = [1, 0.5, 2];
  for (const promotion of [16, 32, 64, 128]) {
    for (const accumulatorBits of [0, 14]) {
      expect(scaledSum(products, (tile) => scales[tile]!, { promotion, accumulatorBits })).toBe(
        128 + 64 + 88,
      );
    }
  }
  expect(scaledSum(products, (tile) => scales[tile]!, { promotion: 0, accumulatorBits: 14 })).toBe(280);
  expect(() => scaledSum(products, one, { promotion: 0, accumulatorBits: 0 })).toThrow("blocks of 0");
  expect(() => scaledSum(products, one, { promotion: 128, accumulatorBits: 13 })).toThrow("13 bits");
});

test("a fused multiply-add is rounded once, by integers", () => {
  // a * b + c in units of 2^-60 as an integer, rounded by hand to 24 bits, ties to even.
  const rounded = (value: bigint): number => {
    const magnitude = value < 0n ? -value : value;
    const bits = magnitude.toString(2).length;
    if (bits <= 24) return Number(value) * 2 ** -60;
    const shift = BigInt(bits - 24);
    const [low, half] = [magnitude & ((1n << shift) - 1n), 1n << (shift - 1n)];
    let kept = magnitude >> shift;
    if (low > half || (low === half && (kept & 1n) === 1n)) kept += 1n;
    return Number(kept << shift) * 2 ** -60 * (value < 0n ? -1 : 1);
  };
  const random = makeRandom(5);
  for (let i = 0; i < 20_000; i++) {
    const draw = (bits: number): number => Math.floor((random() - 0.5) * 2 ** bits);
    const [a, b] = [draw(25), draw(i % 2 === 0 ? 25 : 8)];
    // c often lies halfway between two results, or just beside.
    const c = i % 3 === 0 ? draw(24) * 2 ** 24 : draw(24);
    const exact = (BigInt(a) * BigInt(b) + BigInt(c)) * 2n ** 20n;
    expect(fusedMultiplyAdd(a * 2 ** -20, b * 2 ** -20, c * 2 ** -40)).toBe(rounded(exact));
  }
  expect(fusedMultiplyAdd(Number.NaN, 1, 1)).toBeNaN();
  expect(fusedMultiplyAdd(2 ** 100, 2 ** 100, 0)).toBe(Number.POSITIVE_INFINITY);
});
