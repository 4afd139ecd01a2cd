import { describe, expect, test } from "vitest";
import { readGolden } from "../../../test/support/golden.ts";
import { gradientError, makeOracleDevice } from "../../../test/support/gradient.ts";
import { makeVector } from "../../../test/support/parameters.ts";
import { normals } from "../../../test/support/random.ts";
import { distance, tolerances } from "../../../test/support/tolerance.ts";
import { ShapeError } from "../../base/index.ts";
import { bf16FromNumber, bf16ToNumber } from "../dtype.ts";
import { Tape } from "../tape.ts";
import { addRmsNorm, rmsNorm } from "./addRmsNorm.ts";

const EPS = 1e-6;

describe("rmsNorm", () => {
  test("equals PyTorch, forward and backward, also for a zero row and one where eps decides", async () => {
    const golden = readGolden("ops/rmsnorm");
    const device = makeOracleDevice();
    const { shape, values } = golden("x");
    const x = device.from(values, shape, "f64");
    const gain = makeVector(device, "norm.weight", [48], { seed: 1 });
    gain.master.write(golden("weight").values);
    using tape = new Tape(device);
    tape.watch(x);
    const y = device.withTape(tape, () => rmsNorm(x, gain, EPS, "f64"));
    tape.seed(y, device.from(golden("d_out").values, shape, "f64"));
    tape.backward();
    const pairs = [
      [await y.read(), golden("out")],
      [(await tape.gradOf(x)?.read())!, golden("d_x")],
      [(await gain.grad?.read())!, golden("d_weight")],
    ] as const;
    for (const [actual, expected] of pairs) {
      expect(distance(actual, expected.values).frobenius).toBeLessThan(tolerances.f32.frobenius);
    }
  });

  test("hands back the gradients of input and gain", async () => {
    const device = makeOracleDevice();
    const x = device.from(normals(5 * 7, 1), [5, 7], "f64");
    const gain = makeVector(device, "norm.weight", [7], { seed: 2 });
    const problem = { inputs: [x], parameters: [gain], build: () => [rmsNorm(x, gain, 0.1, "f64")] };
    const { worst, of } = await gradientError(device, problem);
    expect(worst, of).toBeLessThan(1e-8);
  });

  test("passes the same gradient on when its gain is frozen", async () => {
    const device = makeOracleDevice();
    const x = device.from(normals(3 * 7, 3), [3, 7], "f64");
    const gain = makeVector(device, "norm.weight", [7], { seed: 4, isTrained: false });
    const problem = { inputs: [x], parameters: [], build: () => [rmsNorm(x, gain, EPS, "f64")] };
    expect((await gradientError(device, problem)).worst).toBeLessThan(1e-8);
    expect(gain.grad).toBeNull();
  });

  test("adds to the gain's gradient instead of replacing it", async () => {
    const device = makeOracleDevice();
    const x = device.from(normals(2 * 4, 5), [2, 4], "f64");
    const gain = makeVector(device, "norm.weight", [4], { seed: 6 });
    const step = (): void => {
      using tape = new Tape(device);
      const y = device.withTape(tape, () => rmsNorm(x, gain, EPS, "f64"));
      tape.seed(y, x);
      tape.backward();
    };
    step();
    const once = await gain.grad!.read();
    step();
    expect(
      distance(
        await gain.grad!.read(),
        once.map((v) => 2 * v),
      ).frobenius,
    ).toBeLessThan(1e-14);
  });

  test("names the gain and both shapes when the widths differ", () => {
    const device = makeOracleDevice();
    const x = device.from(normals(8, 7), [2, 4], "f64");
    const gain = makeVector(device, "model.norm.weight", [5], { seed: 8 });
    expect(() => rmsNorm(x, gain, EPS, "f64")).toThrow(ShapeError);
    expect(() => rmsNorm(x, gain, EPS, "f64")).toThrow(/model\.norm\.weight is \[5\], it must be \[4\]/);
  });
});

describe("addRmsNorm", () => {
  test("is the sum, and the norm of the sum", async () => {
    const device = makeOracleDevice();
    const [x, delta] = [1, 2].map((seed) => device.from(normals(12, seed), [3, 4], "f64"));
    const gain = makeVector(device, "norm.weight", [4], { seed: 3 });
    const { sum, y } = addRmsNorm(x!, delta!, gain, EPS, "f64", "f64");
    const [xs, ds, sums] = [await x!.read(), await delta!.read(), await sum.read()];
    expect(Array.from(sums)).toEqual(Array.from(xs, (v, i) => v + ds[i]!));
    const alone = rmsNorm(sum, gain, EPS, "f64");
    expect(await y.read()).toEqual(await alone.read());
  });

  test("hands back the gradients of both addends and the gain, whichever outputs are used", async () => {
    const device = makeOracleDevice();
    const [x, delta] = [4, 5].map((seed) => device.from(normals(3 * 6, seed), [3, 6], "f64"));
    const gain = makeVector(device, "norm.weight", [6], { seed: 6 });
    const build = (): ReturnType<typeof addRmsNorm> => addRmsNorm(x!, delta!, gain, 0.1, "f64", "f64");
    const inputs = [x!, delta!];
    for (const outputs of [
      () => [build().sum, build().y],
      () => [build().y],
      () => [build().sum],
      () => Object.values(build()),
    ]) {
      const { worst, of } = await gradientError(device, { inputs, parameters: [gain], build: outputs });
      expect(worst, of).toBeLessThan(1e-8);
    }
  });

  test("gives x and delta the very same gradient tensor", () => {
    const device = makeOracleDevice();
    const [x, delta] = [7, 8].map((seed) => device.from(normals(8, seed), [2, 4], "f64"));
    const gain = makeVector(device, "norm.weight", [4], { seed: 9 });
    using tape = new Tape(device);
    for (const input of [x!, delta!]) tape.watch(input);
    const { sum, y } = device.withTape(tape, () => addRmsNorm(x!, delta!, gain, EPS, "f64", "f64"));
    tape.seed(sum, x!);
    tape.seed(y, delta!);
    tape.backward();
    expect(tape.gradOf(x!)).not.toBeNull();
    expect(tape.gradOf(x!)).toBe(tape.gradOf(delta!));
  });

  test("takes its statistics before the sum is rounded for storage", async () => {
    const device = makeOracleDevice();
    const xs = Float32Array.from(normals(64, 10));
    const ds = Float32Array.from(normals(64, 11));
    const x = device.from(xs, [1, 64], "f32");
    const delta = device.from(ds, [1, 64], "f32");
    const gain = makeVector(device, "norm.weight", [64], { seed: 12, dtype: "f32" });
    const rounded = addRmsNorm(x, delta, gain, EPS, "bf16", "f32");
    const exact = addRmsNorm(x, delta, gain, EPS, "f32", "f32");
    expect(await rounded.y.read()).toEqual(await exact.y.read());
    const sums = await exact.sum.read();
    const stored = Array.from(sums, (v) => bf16ToNumber(bf16FromNumber(v)));
    expect(Array.from(await rounded.sum.read())).toEqual(stored);
  });

  test("names the gain that stands before the wrong delta", () => {
    const device = makeOracleDevice();
    const x = device.from(normals(8, 13), [2, 4], "f64");
    const delta = device.from(normals(4, 14), [1, 4], "f64");
    const gain = makeVector(device, "model.layers.3.inputLayernorm.weight", [4], { seed: 15 });
    expect(() => addRmsNorm(x, delta, gain, EPS, "f64", "f64")).toThrow(
      /layers\.3\.inputLayernorm\.weight: delta is \[1, 4\], it must be \[2, 4\]/,
    );
  });
});
