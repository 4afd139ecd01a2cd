import { describe, expect, test } from "vitest";
import { gradientError, makeOracleDevice } from "../../../test/support/gradient.ts";
import { makeVector } from "../../../test/support/parameters.ts";
import { normals } from "../../../test/support/random.ts";
import { ShapeError } from "../../base/index.ts";
import { rmsNorm } from "./addRmsNorm.ts";
import { mtpInput } from "./mtpInput.ts";

const [T, D, EPS] = [4, 5, 1e-6];

function makeProblem() {
  const device = makeOracleDevice();
  return {
    device,
    e: device.from(normals(T * D, 1), [T, D], "f64"),
    h: device.from(normals(T * D, 2, 3), [T, D], "f64"),
    eGain: makeVector(device, "enorm.weight", [D], { seed: 3 }),
    hGain: makeVector(device, "hnorm.weight", [D], { seed: 4 }),
  };
}

describe("mtpInput", () => {
  test("puts the normed embedding first and the normed hidden state behind it", async () => {
    const { e, h, eGain, hGain } = makeProblem();
    const z = Array.from(await mtpInput(e, h, eGain, hGain, EPS, "f64").read());
    const first = Array.from(await rmsNorm(e, eGain, EPS, "f64").read());
    const second = Array.from(await rmsNorm(h, hGain, EPS, "f64").read());
    for (let t = 0; t < T; t++) {
      const row = z.slice(2 * t * D, 2 * (t + 1) * D);
      expect(row).toEqual([...first.slice(t * D, (t + 1) * D), ...second.slice(t * D, (t + 1) * D)]);
    }
  });

  test("hands back the gradients of both inputs and both gains", async () => {
    const { device, e, h, eGain, hGain } = makeProblem();
    const build = () => [mtpInput(e, h, eGain, hGain, 0.1, "f64")];
    const problem = { inputs: [e, h], parameters: [eGain, hGain], build };
    const { worst, of } = await gradientError(device, problem);
    expect(worst, of).toBeLessThan(1e-8);
  });

  test("names the gain beside which a shape is wrong", () => {
    const { device, e, h, eGain, hGain } = makeProblem();
    const short = device.from(normals(D, 5), [1, D], "f64");
    expect(() => mtpInput(e, short, eGain, hGain, EPS, "f64")).toThrow(ShapeError);
    expect(() => mtpInput(e, short, eGain, hGain, EPS, "f64")).toThrow(/hnorm\.weight: h is \[1, 5\]/);
    const wide = makeVector(device, "enorm.weight", [D + 1], { seed: 6 });
    expect(() => mtpInput(e, h, wide, hGain, EPS, "f64")).toThrow(/enorm\.weight is \[6\], it must be \[5\]/);
  });
});
