import { describe, expect, test } from "vitest";
import { gradientError, makeOracleDevice } from "../../../test/support/gradient.ts";
import { makeVector } from "../../../test/support/parameters.ts";
import { normals } from "../../../test/support/random.ts";
import { ShapeError } from "../../base/index.ts";
import type { QueueDevice } from "../device.ts";
import type { Parameter } from "../parameter.ts";
import type { Tensor } from "../tensor.ts";
import { rmsNorm } from "./addRmsNorm.ts";
import { latentKv } from "./latentKv.ts";
import { type RopeTable, rope } from "./rope.ts";

const [T, C, R, EPS] = [5, 6, 4, 1e-6];

interface Problem {
  readonly device: QueueDevice;
  readonly kvA: Tensor;
  readonly gain: Parameter;
  readonly table: RopeTable;
  readonly positions: Tensor;
}

function makeProblem(): Problem {
  const device = makeOracleDevice();
  const angles = normals(8 * (R / 2), 1);
  return {
    device,
    kvA: device.from(normals(T * (C + R), 2), [T, C + R], "f64"),
    gain: makeVector(device, "kvALayernorm.weight", [C], { seed: 3 }),
    table: {
      cos: device.from(angles.map(Math.cos), [8, R / 2], "f64"),
      sin: device.from(angles.map(Math.sin), [8, R / 2], "f64"),
    },
    positions: device.from([3, 0, 7, 1, 1], [T], "i32"),
  };
}

function run({ kvA, gain, table, positions }: Problem): ReturnType<typeof latentKv> {
  return latentKv(kvA, gain, EPS, table, positions, C, "f64");
}

describe("latentKv", () => {
  test("is rmsNorm on the first C channels and rope on the last R", async () => {
    const problem = makeProblem();
    const { device, gain, table, positions } = problem;
    const rows = await problem.kvA.read();
    const part = (from: number, to: number): Float64Array =>
      Float64Array.from(rows.filter((_, i) => i % (C + R) >= from && i % (C + R) < to));
    const { latent, kRope } = run(problem);
    const normed = rmsNorm(device.from(part(0, C), [T, C], "f64"), gain, EPS, "f64");
    expect(await latent.read()).toEqual(await normed.read());
    const key = device.from(part(C, C + R), [T, R], "f64");
    const turned = rope(key, table, positions, { heads: 1, stride: R, offset: 0, width: R });
    expect(await kRope.read()).toEqual(await turned.read());
  });

  test("hands back the gradients of input and gain, whichever of the outputs are used", async () => {
    const problem = makeProblem();
    const parameters = [problem.gain];
    const inputs = [problem.kvA];
    for (const build of [
      () => Object.values(run(problem)),
      () => [run(problem).latent],
      () => [run(problem).kRope],
    ]) {
      const { worst, of } = await gradientError(problem.device, { inputs, parameters, build });
      expect(worst, of).toBeLessThan(1e-8);
    }
  });

  test("names gain, table or positions when they do not fit", () => {
    const problem = makeProblem();
    const { device, kvA, gain, table } = problem;
    expect(() => latentKv(kvA, gain, EPS, table, problem.positions, C + 1, "f64")).toThrow(
      /kvALayernorm\.weight: kvA is \[5, 10\], it must be \[5, 11\]/,
    );
    const narrow = makeVector(device, "kvALayernorm.weight", [C - 1], { seed: 4 });
    expect(() => run({ ...problem, gain: narrow })).toThrow(
      /kvALayernorm\.weight is \[5\], it must be \[6\]/,
    );
    const positions = device.from([0], [1], "i32");
    expect(() => run({ ...problem, positions })).toThrow(ShapeError);
    const sin = device.from(normals(4, 5), [2, 2], "f64");
    expect(() => run({ ...problem, table: { ...table, sin } })).toThrow(/latentKv: sin is \[2, 2\]/);
  });
});
