import { describe, expect, test } from "vitest";
import { optimOracles } from "../../../../test/oracle/optim.ts";
import { muonCases } from "../../../../test/support/cases/optim.ts";
import { readGolden } from "../../../../test/support/golden.ts";
import { makeOracleDevice } from "../../../../test/support/gradient.ts";
import { oracleErrors } from "../../../../test/support/oracleError.ts";
import { normals } from "../../../../test/support/random.ts";
import { isWithin } from "../../../../test/support/tolerance.ts";
import { ShapeError } from "../../../base/index.ts";
import { Parameter } from "../../parameter.ts";
import type { Tensor } from "../../tensor.ts";
import { muonStep } from "./muon.ts";

const device = makeOracleDevice();
const settings = { learningRate: 0.1, momentum: 0.95, weightDecay: 0, clip: 1 };

function makeMatrix(N: number, K: number, grad: ArrayLike<number>): Parameter {
  const parameter = Parameter.make(device, "test.weight", [N, K], {
    compute: "f64",
    master: "f64",
    isTrained: true,
  });
  parameter.master.write(new Float64Array(N * K));
  parameter.grad!.write(grad);
  return parameter;
}

const zeroMomentum = (N: number, K: number): Tensor => device.from(new Float64Array(N * K), [N, K], "f64");

/** Singular values by one-sided Jacobi rotations of the rows. */
function singularValues(w: ArrayLike<number>, N: number, K: number): number[] {
  const rows = Array.from({ length: N }, (_, n) => Array.from(w).slice(n * K, (n + 1) * K));
  const dot = (a: number[], b: number[]): number => a.reduce((sum, value, i) => sum + value * b[i]!, 0);
  for (let sweep = 0; sweep < 30; sweep++) {
    for (let p = 0; p < N; p++) {
      for (let q = p + 1; q < N; q++) {
        const [a, b] = [rows[p]!, rows[q]!];
        const angle = 0.5 * Math.atan2(2 * dot(a, b), dot(a, a) - dot(b, b));
        const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
        rows[p] = a.map((value, i) => cos * value + sin * b[i]!);
        rows[q] = b.map((value, i) => cos * value - sin * a[i]!);
      }
    }
  }
  return rows.map((row) => Math.sqrt(dot(row, row)));
}

describe("muon", () => {
  test.each(muonCases.map((opCase) => [opCase.name, opCase] as const))(
    "%s: as the oracle",
    async (_, opCase) => {
      for (const [output, error] of Object.entries(await oracleErrors(opCase, optimOracles["muon"]!))) {
        // Fifteen products magnify the last bits of doubles some hundred times.
        expect(isWithin(error, { frobenius: 1e-10, max: 1e-9 }), `${output} ${JSON.stringify(error)}`).toBe(
          true,
        );
      }
    },
  );

  test.each(["wide", "tall"])("three steps of a %s matrix as torch.optim.Muon takes them", async (name) => {
    const golden = readGolden("ops/muon");
    const { shape, values } = golden(`${name}_param`);
    const [N, K] = shape as [number, number];
    const grads = golden(`${name}_grads`).values;
    const parameter = makeMatrix(N, K, values);
    parameter.master.write(values);
    const momentum = zeroMomentum(N, K);
    // The golden weights are rounded to float32, 3e-8 of a number near 1: 1e-5 of what a step moves.
    const close = { "": 3e-5, _bf16: 2e-2 };
    for (let step = 0; step < 3; step++) {
      const start = step * N * K;
      parameter.grad!.write(grads.slice(start, start + N * K));
      muonStep(parameter, momentum, null, { ...settings, learningRate: 1e-2, weightDecay: 0.1 });
      const w = await parameter.master.read();
      for (const [suffix, limit] of Object.entries(close)) {
        const after = golden(`${name}_after${suffix}`).values.slice(start, start + N * K);
        // Of what the steps so far have moved: the weights themselves are much larger.
        const moved = Math.hypot(...after.map((value, i) => value - values[i]!));
        const error = Math.hypot(...after.map((value, i) => value - w[i]!));
        expect(error / moved, `step ${step + 1}${suffix}`).toBeLessThan(limit);
      }
    }
  });

  test("moves every singular direction of the momentum about equally far, the root mean square being AdamW's", async () => {
    using _scope = device.scope();
    const [N, K] = [12, 30];
    const parameter = makeMatrix(N, K, normals(N * K, 5));
    muonStep(parameter, zeroMomentum(N, K), null, settings);
    const update = Array.from(await parameter.master.read());
    const reach = settings.learningRate * 0.2 * Math.sqrt(K);
    for (const value of singularValues(update, N, K)) {
      expect(value / reach).toBeGreaterThan(0.65);
      expect(value / reach).toBeLessThan(1.25);
    }
    const rms = Math.sqrt(update.reduce((sum, value) => sum + value ** 2, 0) / update.length);
    expect(rms / settings.learningRate).toBeGreaterThan(0.15);
    expect(rms / settings.learningRate).toBeLessThan(0.25);
  });

  test("looks one momentum ahead, as Nesterov does", async () => {
    using _scope = device.scope();
    const parameter = makeMatrix(1, 1, [1]);
    const momentum = device.from([-1], [1, 1], "f64");
    // m = -0.95 + 1 = 0.05, u = 1 + 0.95 * 0.05 > 0; a plain momentum near -1 would have gone the other way.
    muonStep(parameter, momentum, null, settings);
    expect((await momentum.read())[0]).toBeCloseTo(0.05, 12);
    expect((await parameter.master.read())[0]).toBeLessThan(0);
  });

  test("the packed copies are those of the new weights", async () => {
    using _scope = device.scope();
    const parameter = makeMatrix(35, 9, normals(315, 2));
    muonStep(parameter, zeroMomentum(35, 9), null, settings);
    const [panels, panelsT] = [await parameter.panels!.read(), await parameter.panelsT!.read()];
    parameter.repack();
    expect(panels).toEqual(await parameter.panels!.read());
    expect(panelsT).toEqual(await parameter.panelsT!.read());
    expect(panels.some((value) => value !== 0)).toBe(true);
  });

  test("refuses a momentum of another shape, and a vector", () => {
    using _scope = device.scope();
    const parameter = makeMatrix(2, 3, normals(6, 1));
    expect(() => muonStep(parameter, zeroMomentum(3, 2), null, settings)).toThrow(ShapeError);
    const options = { compute: null, master: "f64", isTrained: true } as const;
    const gain = Parameter.make(device, "test.gain", [3], options);
    const momentum = device.from([0, 0, 0], [3], "f64");
    expect(() => muonStep(gain, momentum, null, settings)).toThrow(/vectors and tables/);
  });
});
