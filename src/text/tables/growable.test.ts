import { describe, expect, test } from "vitest";
import { growInt32, growUint8 } from "./growable.ts";

describe.each([
  ["growInt32", growInt32, (numbers: number[]) => Int32Array.from(numbers)],
  ["growUint8", growUint8, (numbers: number[]) => Uint8Array.from(numbers)],
] as const)("%s", (_, grow, make) => {
  const growAny = grow as (array: Int32Array | Uint8Array, minLength: number) => Int32Array | Uint8Array;

  test("an array that is long enough stays the same array", () => {
    const array = make([1, 2, 3]);
    expect(growAny(array, 3)).toBe(array);
    expect(growAny(array, 0)).toBe(array);
  });

  test("a longer one begins with the same numbers and is at least twice as long", () => {
    const longer = growAny(make([1, 2, 3]), 4);
    expect([...longer]).toEqual([1, 2, 3, 0, 0, 0]);
  });

  test("a leap goes to the length that is asked for", () => {
    expect(growAny(make([1]), 100)).toHaveLength(100);
    expect(growAny(make([]), 1)).toHaveLength(1);
  });
});
