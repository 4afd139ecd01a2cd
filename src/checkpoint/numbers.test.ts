import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { bf16FromNumber } from "../tensor/index.ts";
import { READABLE, widen } from "./numbers.ts";

const half = (...codes: number[]): number[] =>
  Array.from(widen(new Uint8Array(Uint16Array.from(codes).buffer), "F16"));

describe("widen", () => {
  test("gives f32 as it lies, NaN's bits and the sign of zero included", () => {
    const bits = Uint32Array.of(0x3f800000, 0x80000000, 0x7fc00001, 0x00000001, 0xff800000);
    const values = widen(new Uint8Array(bits.buffer), "F32");
    expect(new Uint32Array(values.buffer, values.byteOffset, values.length)).toEqual(bits);
  });

  test("gives every bf16 back exactly", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 0xffff }), (code) => {
        const [value] = widen(new Uint8Array(Uint16Array.of(code).buffer), "BF16");
        if (Number.isNaN(value)) expect(code & 0x7fff).toBeGreaterThan(0x7f80);
        else expect(bf16FromNumber(value!)).toBe(code);
      }),
    );
  });

  // IEEE 754-2019, binary16: the values of its table of extremes.
  test("knows half precision's extremes: largest, smallest normal, subnormals, zeros, infinities, NaN", () => {
    expect(half(0x3c00, 0xc000, 0x7bff, 0x0400, 0x03ff, 0x0001)).toEqual([
      1,
      -2,
      65504,
      2 ** -14,
      2 ** -14 - 2 ** -24,
      2 ** -24,
    ]);
    expect(half(0x0000, 0x8000, 0x7c00, 0xfc00, 0x7e00)).toEqual([
      0,
      -0,
      Number.POSITIVE_INFINITY,
      Number.NEGATIVE_INFINITY,
      Number.NaN,
    ]);
    expect(half(0x3555)[0]).toBe(0.333251953125);
  });

  test("orders all positive halves as their codes are ordered", () => {
    const values = half(...Array.from({ length: 0x7c01 }, (_, code) => code));
    expect(values.every((value, code) => code === 0 || value > values[code - 1]!)).toBe(true);
  });

  test("rounds doubles to the nearest f32", () => {
    const doubles = Float64Array.of(1 / 3, 1e-300, 1e300, -0);
    expect(Array.from(widen(new Uint8Array(doubles.buffer), "F64"))).toEqual([
      Math.fround(1 / 3),
      0,
      Number.POSITIVE_INFINITY,
      -0,
    ]);
  });

  test("reads bytes that begin anywhere in their buffer", () => {
    for (const dtype of READABLE) {
      const width = { F32: 4, F64: 8, BF16: 2, F16: 2 }[dtype as "F32"];
      const aligned = Uint8Array.from({ length: 2 * width }, (_, i) => 3 * i + 1);
      const shifted = new Uint8Array(2 * width + 1);
      shifted.set(aligned, 1);
      expect(widen(shifted.subarray(1), dtype)).toEqual(widen(aligned, dtype));
    }
  });

  test("refuses dtypes that hold no weights", () => {
    expect(() => widen(new Uint8Array(8), "I64")).toThrow(/I64 does not hold weights/);
    expect(READABLE).not.toContain("I64");
  });
});
