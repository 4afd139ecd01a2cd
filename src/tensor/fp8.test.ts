import { describe, expect, test } from "vitest";
import {
  e4m3FromNumber,
  e4m3ToNumber,
  e5m6FromNumber,
  e5m6ToNumber,
  GREATEST,
  packE5m6,
  powerOfTwoCeil,
  tileScale,
  unpackE5m6,
} from "./fp8.ts";

/** Numbers a hair to either side of every point between two neighbours, and the points themselves. */
function midpoints(values: readonly number[]): { readonly below: number; readonly above: number }[] {
  return values.slice(1).map((above, i) => ({ below: values[i]!, above }));
}

describe.each([
  { name: "e4m3", from: e4m3FromNumber, to: e4m3ToNumber, codes: 256, greatest: GREATEST.f8e4m3 },
  { name: "e5m6", from: e5m6FromNumber, to: e5m6ToNumber, codes: 4096, greatest: GREATEST.e5m6 },
])("$name", ({ from, to, codes, greatest }) => {
  const half = codes / 2;
  const all = Array.from({ length: codes }, (_, code) => code);
  const finite = all.filter((code) => Number.isFinite(to(code)));

  test("gives back every finite code, both zeros included", () => {
    expect(finite.filter((code) => from(to(code)) !== code)).toEqual([]);
    expect(Object.is(to(half), -0)).toBe(true);
  });

  test("its values ascend with the code up to the greatest", () => {
    const positive = finite.filter((code) => code < half).map(to);
    expect(positive.every((value, i) => i === 0 || value > positive[i - 1]!)).toBe(true);
    expect(positive.at(-1)).toBe(greatest);
  });

  test("goes to the nearer neighbour, and between two to the even code", () => {
    for (const { below, above } of midpoints(finite.filter((code) => code < half).map(to))) {
      const middle = (below + above) / 2;
      const even = from(below) % 2 === 0 ? below : above;
      expect(to(from(middle))).toBe(even);
      expect(to(from(middle - (above - below) * 2 ** -40))).toBe(below);
      expect(to(from(middle + (above - below) * 2 ** -40))).toBe(above);
      expect(to(from(-middle))).toBe(-even);
    }
  });

  test("saturates what is finite, and makes NaN of what is not", () => {
    for (const value of [greatest * 1.04, 1e6, 3e38, 1e300]) {
      expect([to(from(value)), to(from(-value))]).toEqual([greatest, -greatest]);
    }
    expect([from(Number.NaN) % half, from(Number.POSITIVE_INFINITY)]).toEqual([half - 1, half - 1]);
    expect(from(Number.NEGATIVE_INFINITY)).toBe(codes - 1);
    expect([to(half - 1), to(codes - 1)]).toEqual([Number.NaN, Number.NaN]);
  });
});

describe("e4m3FromNumber", () => {
  test("gives the codes that the specification lists", () => {
    const listed = [
      [1, 0x38],
      [1.0625, 0x38],
      [1.125, 0x39],
      [1.1875, 0x3a],
      [17, 0x58],
      [19, 0x5a],
      [300, 0x79],
      [0.3, 0x2a],
      [464, 0x7e],
      [2 ** -10, 0x00],
      [0.0029296875, 0x02],
      [0.0146484375, 0x08],
      [-0, 0x80],
    ] as const;
    expect(listed.map(([value]) => e4m3FromNumber(value))).toEqual(listed.map(([, code]) => code));
  });
});

describe("packE5m6", () => {
  test("puts two numbers in three bytes, the first one lowest", () => {
    const bytes = new Uint8Array(3);
    packE5m6([1, -2], bytes); // 0x3c0 and 0xc00
    expect([...bytes]).toEqual([0xc0, 0x03, 0xc0]);
    expect([...unpackE5m6(bytes)]).toEqual([1, -2]);
  });
});

describe("powerOfTwoCeil", () => {
  test("rounds up on bits: the exponents that the specification lists", () => {
    const listed = [
      [448, 0],
      [449, 1],
      [224, -1],
      [7, -6],
      [7.0000005, -5],
      [1, -8],
      [0.875, -9],
      [0.87500006, -8],
      [0, -22],
      [1e-4, -22],
    ] as const;
    const rule = { powerOfTwo: true, floor: 1e-4 };
    const scales = listed.map(([amax]) => Math.log2(tileScale(Math.fround(amax), "f8e4m3", rule)));
    expect(scales).toEqual(listed.map(([, exponent]) => exponent));
    expect([powerOfTwoCeil(1), powerOfTwoCeil(1 + 2 ** -23)]).toEqual([1, 2]);
  });
});

describe("tileScale", () => {
  const plain = { powerOfTwo: false, floor: 0 };

  test("a tile of zeros has scale 1, or that of the floor", () => {
    expect(tileScale(0, "f8e4m3", plain)).toBe(1);
    expect(tileScale(0, "f8e4m3", { ...plain, floor: 1e-4 })).toBe(Math.fround(Math.fround(1e-4) / 448));
  });

  test("numbers too small for a scale that no processor flushes count as zeros", () => {
    expect(tileScale(2 ** -81, "f8e4m3", plain)).toBe(1);
    expect(tileScale(2 ** -80, "f8e4m3", plain)).toBe(Math.fround(2 ** -80 / 448));
  });

  test("a tile with NaN or infinity has scale NaN", () => {
    expect(tileScale(Number.NaN, "e5m6", plain)).toBeNaN();
    expect(tileScale(Number.POSITIVE_INFINITY, "f8e4m3", plain)).toBeNaN();
  });
});
