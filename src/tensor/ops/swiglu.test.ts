import { describe, expect, test } from "vitest";
import { readGolden } from "../../../test/support/golden.ts";
import { gradientError, makeOracleDevice } from "../../../test/support/gradient.ts";
import { normals } from "../../../test/support/random.ts";
import { distance, tolerances } from "../../../test/support/tolerance.ts";
import { ShapeError } from "../../base/index.ts";
import { Tape } from "../tape.ts";
import { swiglu } from "./swiglu.ts";

/** [R, F] beside [R, F] as [R, 2F]. */
function beside(a: Float64Array, b: Float64Array, F: number): Float64Array {
  return Float64Array.from({ length: 2 * a.length }, (_, i) => {
    const [r, column] = [Math.floor(i / (2 * F)), i % (2 * F)];
    return column < F ? a[r * F + column]! : b[r * F + column - F]!;
  });
}

describe("swiglu", () => {
  test("equals PyTorch, forward and backward, also where the sigmoid saturates at -100 and 100", async () => {
    const golden = readGolden("ops/swiglu");
    const [R, F] = golden("gate").shape as [number, number];
    const device = makeOracleDevice();
    const x = device.from(beside(golden("gate").values, golden("up").values, F), [R, 2 * F], "f64");
    using tape = new Tape(device);
    tape.watch(x);
    const y = device.withTape(tape, () => swiglu(x));
    tape.seed(y, device.from(golden("d_out").values, [R, F], "f64"));
    tape.backward();
    const forward = distance(await y.read(), golden("out").values);
    expect(forward.frobenius).toBeLessThan(tolerances.f32.frobenius);
    const expected = beside(golden("d_gate").values, golden("d_up").values, F);
    const backward = distance((await tape.gradOf(x)?.read())!, expected);
    expect(backward.frobenius).toBeLessThan(tolerances.f32.frobenius);
  });

  test("hands back the gradients of gate and up", async () => {
    const device = makeOracleDevice();
    const x = device.from(normals(4 * 10, 1, 2), [4, 10], "f64");
    const problem = { inputs: [x], parameters: [], build: () => [swiglu(x)] };
    expect((await gradientError(device, problem)).worst).toBeLessThan(1e-8);
  });

  test("stores the result in the dtype asked for, and the gradient in x's", async () => {
    const device = makeOracleDevice();
    const x = device.from(normals(6, 2), [1, 6], "f32");
    using tape = new Tape(device);
    tape.watch(x);
    const y = device.withTape(tape, () => swiglu(x, "bf16"));
    tape.seed(y, y);
    tape.backward();
    expect([y.dtype, y.shape, tape.gradOf(x)?.dtype]).toEqual(["bf16", [1, 3], "f32"]);
  });

  test("refuses an odd number of channels", () => {
    const device = makeOracleDevice();
    const x = device.from(normals(10, 3), [2, 5], "f64");
    expect(() => swiglu(x)).toThrow(ShapeError);
    expect(() => swiglu(x)).toThrow(/x is \[2, 5\], its last dimension must be even/);
  });
});
