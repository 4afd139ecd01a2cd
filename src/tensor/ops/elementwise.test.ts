import { describe, expect, test } from "vitest";
import { gradientError, makeOracleDevice } from "../../../test/support/gradient.ts";
import { normals } from "../../../test/support/random.ts";
import { ShapeError } from "../../base/index.ts";
import { HostScalar } from "../hostScalar.ts";
import { Tape } from "../tape.ts";
import { add, addCounts, axpy, cast, copyInto, copyIntoRow, fill, scale } from "./elementwise.ts";

describe("element-wise ops", () => {
  test("fill writes every element and nothing beside a view", async () => {
    const device = makeOracleDevice();
    const y = device.from([1, 2, 3, 4, 5, 6], [3, 2], "f64");
    fill(y.rows(1, 2), 0.5);
    expect(Array.from(await y.read())).toEqual([1, 2, 0.5, 0.5, 5, 6]);
  });

  test("cast rounds to nearest even, and is no op at all between equal dtypes", async () => {
    const device = makeOracleDevice();
    // 1 + 2^-8 lies halfway between two bf16; the even one is 1. Three halves of the unit go up to 1 + 2^-6.
    const x = device.from([1 + 2 ** -8, 1 + 3 * 2 ** -8, -0, 1e39], [4], "f32");
    const rounded = Array.from(await cast(x, "bf16").read());
    expect(rounded).toEqual([1, 1 + 2 ** -6, -0, Number.POSITIVE_INFINITY]);
    expect(cast(x, "f32")).toBe(x);
  });

  test("cast hands its gradient back in x's dtype", () => {
    const device = makeOracleDevice();
    const x = device.from([1, 2], [2], "f32");
    using tape = new Tape(device);
    tape.watch(x);
    const y = device.withTape(tape, () => cast(x, "bf16"));
    tape.seed(y, y);
    tape.backward();
    expect(tape.gradOf(x)?.dtype).toBe("f32");
  });

  test("add takes the wider dtype and gives both addends the gradient", async () => {
    const device = makeOracleDevice();
    const narrow = device.from([1], [1], "bf16");
    const wide = device.from([2 ** -20], [1], "f32");
    for (const y of [add(narrow, wide), add(wide, narrow)]) {
      expect(y.dtype).toBe("f32");
      expect(Array.from(await y.read())).toEqual([1 + 2 ** -20]);
    }
    const [a, b] = [1, 2].map((seed) => device.from(normals(6, seed), [2, 3], "f64"));
    const problem = { inputs: [a!, b!], parameters: [], build: () => [add(a!, add(a!, b!))] };
    expect((await gradientError(device, problem)).worst).toBeLessThan(1e-8);
  });

  test("axpy, scale and copyInto change their target in place", async () => {
    const device = makeOracleDevice();
    const x = device.from([1, 2, 3], [3], "f64");
    const y = device.from([10, 20, 30], [3], "f64");
    axpy(x, y, 2);
    expect(Array.from(await y.read())).toEqual([12, 24, 36]);
    scale(y, 0.5);
    expect(Array.from(await y.read())).toEqual([6, 12, 18]);
    copyInto(x, y);
    expect(Array.from(await y.read())).toEqual([1, 2, 3]);
  });

  test("copyIntoRow writes the row that a scalar names, and no other; a row beyond the table is refused", async () => {
    const device = makeOracleDevice();
    const table = device.from([1, 2, 3, 4, 5, 6], [3, 2], "f64");
    const row = new HostScalar(1);
    copyIntoRow(device.from([7, 8], [2], "f64"), table, row);
    expect(Array.from(await table.read())).toEqual([1, 2, 7, 8, 5, 6]);
    row.value = 3;
    expect(() => copyIntoRow(device.from([7, 8], [2], "f64"), table, row)).toThrow(/row 3/);
    expect(() => copyIntoRow(device.from([7], [1], "f64"), table, 0)).toThrow(ShapeError);
  });

  test("addCounts adds whole numbers that f32 would round", async () => {
    const device = makeOracleDevice();
    const y = device.from([2 ** 24, -1], [2], "i32");
    addCounts(device.from([1, 1], [2], "i32"), y);
    expect(Array.from(await y.read())).toEqual([2 ** 24 + 1, 0]);
  });

  test("copyInto converts nothing", () => {
    const device = makeOracleDevice();
    const [x, y] = [device.from([1], [1], "f32"), device.from([1], [1], "bf16")];
    expect(() => copyInto(x, y)).toThrow(/copy: x is f32, it must be bf16/);
  });

  test("unequal shapes are named", () => {
    const device = makeOracleDevice();
    const x = device.from([1, 2, 3], [3], "f64");
    const y = device.from([1, 2], [2], "f64");
    for (const wrong of [() => add(x, y), () => axpy(x, y, 1), () => copyInto(x, y)]) {
      expect(wrong).toThrow(ShapeError);
      expect(wrong).toThrow(/is \[\d\], it must be \[\d\]/);
    }
  });
});
