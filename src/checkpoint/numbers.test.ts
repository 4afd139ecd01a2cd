import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { bf16FromNumber } from "../tensor/index.ts";
import { READABLE, toBf16Bytes, toF32Bytes, widen } from "./numbers.ts";

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

describe("toBf16Bytes", () => {
  const codes = (values: Float32Array): number[] => Array.from(new Uint16Array(toBf16Bytes(values).buffer));

  test("rounds as one number is rounded, whatever its bits: ties, overflow, subnormals, infinities", () => {
    const bits = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });
    fc.assert(
      fc.property(fc.array(bits, { maxLength: 20 }), (list) => {
        const values = new Float32Array(Int32Array.from(list).buffer);
        const isNan = (code: number): boolean => (code & 0x7fff) > 0x7f80;
        for (const [i, code] of codes(values).entries()) {
          if (Number.isNaN(values[i])) expect(isNan(code)).toBe(true);
          else expect(code).toBe(bf16FromNumber(values[i]!));
        }
      }),
    );
    const ties = Uint32Array.of(0x3f808000, 0x3f818000, 0x7f7fffff, 0x00008000, 0x80000000, 0x7f800000);
    expect(codes(new Float32Array(ties.buffer))).toEqual([0x3f80, 0x3f82, 0x7f80, 0x0000, 0x8000, 0x7f80]);
  });

  test("keeps NaN whose upper bits are all zero", () => {
    expect(codes(new Float32Array(Uint32Array.of(0x7f800001, 0xff800001).buffer))).toEqual([0x7fc0, 0xffc0]);
  });
});

describe("toF32Bytes", () => {
  test("gives f32 as it lies, and doubles rounded", () => {
    const values = Float32Array.of(1, 2.5, -0).subarray(1);
    expect(Array.from(widen(toF32Bytes(values), "F32"))).toEqual([2.5, -0]);
    expect(Array.from(widen(toF32Bytes(Float64Array.of(1 / 3)), "F32"))).toEqual([Math.fround(1 / 3)]);
  });
});
