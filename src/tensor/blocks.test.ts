import { describe, expect, test } from "vitest";
import { NonFiniteError } from "../base/index.ts";
import { dequantizeBlocks, quantizeBlocks } from "./blocks.ts";
import { e4m3FromNumber, e4m3ToNumber, tileScale, tilesOf } from "./fp8.ts";

/** Every E4M3 number, every middle between two, and the f32 numbers beside each of them, of both signs. */
function telling(): Float32Array {
  const exact = Array.from({ length: 0x7f }, (_, code) => e4m3ToNumber(code));
  const middles = exact.slice(1).map((value, i) => (value + exact[i]!) / 2);
  const denormals = [2 ** -149, 2 ** -130, 2 ** -126];
  const values = [...exact, ...middles, ...denormals].flatMap((value) => [
    value,
    beside(value, -1),
    beside(value, 1),
  ]);
  return Float32Array.from(values.flatMap((value) => [value, -value])).filter(
    (value) => Math.abs(value) <= 448,
  );
}

function beside(value: number, by: number): number {
  const bits = new Int32Array(Float32Array.of(value).buffer);
  bits[0] = Math.max(0, bits[0]! + by);
  return new Float32Array(bits.buffer)[0]!;
}

describe("quantizeBlocks", () => {
  test("casts as e4m3FromNumber does, at every number, every tie and beside them", () => {
    const values = telling();
    expect(values.length).toBeGreaterThan(1500);
    // One row per value and 448 beside it: the scale of its block is 1.
    const weights = new Float32Array(values.length * 2).fill(448);
    for (const [i, value] of values.entries()) weights[2 * i] = value;
    const { codes, scales } = quantizeBlocks(weights, values.length, 2, "w");
    expect(new Set(scales)).toEqual(new Set([1]));
    const found = Array.from(values, (_, i) => codes[2 * i]!);
    expect(found).toEqual(Array.from(values, e4m3FromNumber));
  });

  test.each([
    [192, 130, false],
    [576, 300, true],
    [1, 1, false],
    [129, 257, true],
  ])(
    "gives a matrix of %d x %d, powers of two: %s, the codes and scales of one block after another",
    (N, K, powerOfTwo) => {
      const weights = Float32Array.from({ length: N * K }, (_, i) => Math.sin(i * i) * 2 ** ((i * 7) % 23));
      const { codes, scales } = quantizeBlocks(weights, N, K, "w", powerOfTwo);
      for (let row = 0; row < tilesOf(N); row++) {
        for (let column = 0; column < tilesOf(K); column++) {
          const inside: number[] = [];
          for (let n = 128 * row; n < Math.min(N, 128 * row + 128); n++)
            for (let k = 128 * column; k < Math.min(K, 128 * column + 128); k++) inside.push(n * K + k);
          const amax = Math.max(...inside.map((i) => Math.abs(weights[i]!)));
          const scale = tileScale(amax, "f8e4m3", { powerOfTwo, floor: 0 });
          expect(scales[row * tilesOf(K) + column]).toBe(scale);
          const wanted = inside.map((i) => e4m3FromNumber(Math.fround(weights[i]! / scale)));
          expect(inside.map((i) => codes[i]!)).toEqual(wanted);
        }
      }
      const again = dequantizeBlocks({ codes, scales }, N, K);
      const wanted = Float32Array.from(codes, (code, i) => {
        const block = Math.floor(i / K / 128) * tilesOf(K) + Math.floor((i % K) / 128);
        return e4m3ToNumber(code) * scales[block]!;
      });
      expect(again).toEqual(wanted);
    },
  );

  test("takes what is no Float32Array as f32, and keeps the sign of zero", () => {
    const { codes, scales } = quantizeBlocks([0, -0, 0.1], 1, 3, "w");
    expect([...codes]).toEqual([0, 0x80, 0x7e]);
    expect(scales[0]).toBe(Math.fround(Math.fround(0.1) / 448));
    expect(quantizeBlocks([0, 0], 1, 2, "w").scales[0]).toBe(1);
  });

  test.each([Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])(
    "refuses %d wherever it stands",
    (bad) => {
      for (const at of [0, 127, 129 * 3 - 1]) {
        const weights = new Float32Array(129 * 3).fill(1);
        weights[at] = bad;
        expect(() => quantizeBlocks(weights, 129, 3, "layers.0.up"), String(at)).toThrow(NonFiniteError);
        expect(() => quantizeBlocks(weights, 129, 3, "layers.0.up")).toThrow(
          `layers.0.up holds ${Number.isNaN(bad) ? "NaN" : "Infinity"}`,
        );
      }
    },
  );
});
