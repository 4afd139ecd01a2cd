import { describe, expect, test } from "vitest";
import { gradientError, makeOracleDevice } from "../../../test/support/gradient.ts";
import { normals } from "../../../test/support/random.ts";
import { ShapeError } from "../../base/index.ts";
import { Parameter } from "../parameter.ts";
import { linear } from "./linear.ts";

function makeWeight(
  device: ReturnType<typeof makeOracleDevice>,
  shape: [number, number],
  seed: number,
): Parameter {
  const weight = Parameter.make(device, "test.weight", shape, {
    compute: "f64",
    master: "f64",
    isTrained: true,
  });
  weight.master.write(normals(weight.size, seed));
  weight.repack();
  return weight;
}

describe("linear", () => {
  test("equals the sum over k of x[t, k] * w[n, k]", async () => {
    const device = makeOracleDevice();
    const [T, N, K] = [3, 37, 5];
    const x = device.from(normals(T * K, 1), [T, K], "f64");
    const weight = makeWeight(device, [N, K], 2);
    const [xs, ws] = [await x.read(), await weight.master.read()];
    const y = await linear(x, weight, "f64").read();
    for (let t = 0; t < T; t++) {
      for (let n = 0; n < N; n++) {
        let sum = 0;
        for (let k = 0; k < K; k++) sum += xs[t * K + k]! * ws[n * K + k]!;
        expect(y[t * N + n]).toBeCloseTo(sum, 12);
      }
    }
  });

  test("hands back the gradients of input and weight", async () => {
    const device = makeOracleDevice();
    const x = device.from(normals(4 * 6, 3), [4, 6], "f64");
    const weight = makeWeight(device, [5, 6], 4);
    const { worst, of } = await gradientError(device, {
      inputs: [x],
      parameters: [weight],
      build: () => [linear(x, weight, "f64")],
    });
    expect(worst, of).toBeLessThan(1e-8);
  });

  test("names the parameter and both shapes when the widths differ", () => {
    const device = makeOracleDevice();
    const weight = makeWeight(device, [5, 6], 5);
    const x = device.from(normals(8, 6), [2, 4], "f64");
    expect(() => linear(x, weight, "f64")).toThrow(ShapeError);
    expect(() => linear(x, weight, "f64")).toThrow(/test\.weight.*\[2, 4\].*\[5, 6\]/);
  });
});
