import { describe, expect, test } from "vitest";
import { adamwOracle } from "../../../../test/oracle/optim.ts";
import { adamwCases } from "../../../../test/support/cases/optim.ts";
import { makeOracleDevice } from "../../../../test/support/gradient.ts";
import { oracleErrors } from "../../../../test/support/oracleError.ts";
import { normals } from "../../../../test/support/random.ts";
import { isWithin, tolerances } from "../../../../test/support/tolerance.ts";
import { ShapeError } from "../../../base/index.ts";
import { Parameter } from "../../parameter.ts";
import type { Tensor } from "../../tensor.ts";
import { type AdamwSettings, adamwStep, type Moments } from "./adamw.ts";

const device = makeOracleDevice();

const settings: AdamwSettings = {
  learningRate: 0.1,
  beta1: 0.9,
  beta2: 0.95,
  eps: 1e-8,
  weightDecay: 0,
  step: 1,
  clip: 1,
};

function makeParameter(values: ArrayLike<number>, grad: ArrayLike<number>, shape: number[]): Parameter {
  const compute = shape.length > 1 ? ("f64" as const) : null;
  const parameter = Parameter.make(device, "test.weight", shape, { compute, master: "f64", isTrained: true });
  parameter.master.write(values);
  parameter.grad!.write(grad);
  return parameter;
}

function zeroMoments(shape: readonly number[]): Moments {
  const zeros = (): Tensor => device.from(new Float64Array(shape.reduce((a, b) => a * b, 1)), shape, "f64");
  return { m: zeros(), v: zeros() };
}

describe("adamwStep", () => {
  test.for(adamwCases)("its reference equals the oracle in f64: $name", async (opCase) => {
    for (const [output, error] of Object.entries(await oracleErrors(opCase, adamwOracle))) {
      expect(isWithin(error, tolerances.oracle), `${output}: ${JSON.stringify(error)}`).toBe(true);
    }
  });

  test("the first step moves every weight by the learning rate against its gradient's sign", async () => {
    using _scope = device.scope();
    const parameter = makeParameter([1, 1, 1], [3, -0.001, 40], [3]);
    adamwStep(parameter, zeroMoments([3]), null, settings);
    const after = await parameter.master.read();
    for (const [i, expected] of [0.9, 1.1, 0.9].entries()) expect(after[i]).toBeCloseTo(expected, 5);
  });

  test("decay shrinks weights apart from the gradient", async () => {
    using _scope = device.scope();
    const parameter = makeParameter([2, -4], [0, 0], [2]);
    adamwStep(parameter, zeroMoments([2]), null, { ...settings, weightDecay: 0.5 });
    expect([...(await parameter.master.read())]).toEqual([1.9, -3.8]);
  });

  test("clipping acts as a smaller gradient, and only above the limit", async () => {
    using _scope = device.scope();
    const momentAfter = async (grad: number, norm: number | null): Promise<number> => {
      const moments = zeroMoments([1]);
      const tensor = norm === null ? null : device.from([norm], [1], "f64");
      adamwStep(makeParameter([1], [grad], [1]), moments, tensor, settings);
      return (await moments.m.read())[0]!;
    };
    expect(await momentAfter(8, 0.99)).toBe(await momentAfter(8, null));
    expect(await momentAfter(8, 4)).toBeCloseTo(await momentAfter(2, null), 6);
    expect(await momentAfter(8, Number.NaN)).toBeNaN();
  });

  test("the packed copies are those of the new weights", async () => {
    using _scope = device.scope();
    const parameter = makeParameter(normals(35 * 9, 1), normals(35 * 9, 2), [35, 9]);
    adamwStep(parameter, zeroMoments([35, 9]), null, settings);
    const [panels, panelsT] = [await parameter.panels!.read(), await parameter.panelsT!.read()];
    parameter.repack();
    expect(panels).toEqual(await parameter.panels!.read());
    expect(panelsT).toEqual(await parameter.panelsT!.read());
    expect(panels.some((value) => value !== 0)).toBe(true);
  });

  test("moments in bf16 move the weights as if they had not been rounded yet", async () => {
    using _scope = device.scope();
    const [wide, narrow] = [makeParameter([1], [0.3], [1]), makeParameter([1], [0.3], [1])];
    const moments = { m: device.from([0], [1], "bf16"), v: device.from([0], [1], "bf16") };
    adamwStep(wide, zeroMoments([1]), null, settings);
    adamwStep(narrow, moments, null, settings);
    expect((await narrow.master.read())[0]).toBe((await wide.master.read())[0]);
    expect((await moments.m.read())[0]).toBe(0.030029296875);
  });

  test("descends into the valley of a quadratic", async () => {
    using _scope = device.scope();
    const parameter = makeParameter([3, -2], [0, 0], [2]);
    const moments = zeroMoments([2]);
    for (let step = 1; step <= 200; step++) {
      const w = await parameter.master.read();
      parameter.grad!.write([w[0]! - 1, 10 * (w[1]! - 0.5)]);
      adamwStep(parameter, moments, null, { ...settings, step, learningRate: 5 / (50 + step) });
    }
    const [a, b] = await parameter.master.read();
    expect(a).toBeCloseTo(1, 1);
    expect(b).toBeCloseTo(0.5, 1);
  });

  test("names the parameter whose moments have another shape, and refuses step 0", () => {
    using _scope = device.scope();
    const parameter = makeParameter([1, 2], [1, 2], [2]);
    expect(() => adamwStep(parameter, zeroMoments([3]), null, settings)).toThrow(ShapeError);
    expect(() => adamwStep(parameter, zeroMoments([3]), null, settings)).toThrow(
      /test\.weight: m is \[3\], it must be \[2\]/,
    );
    expect(() => adamwStep(parameter, zeroMoments([2]), null, { ...settings, step: 0 })).toThrow(/from 1/);
  });
});
