import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { makeOracleDevice } from "../../../../test/support/gradient.ts";
import { moveRouterBias } from "./routerBias.ts";

const device = makeOracleDevice();

async function moved(bias: readonly number[], load: readonly number[], gamma: number): Promise<number[]> {
  using _scope = device.scope();
  const tensor = device.from(bias, [bias.length], "f64");
  moveRouterBias(tensor, device.from(load, [load.length], "i32"), gamma);
  return [...(await tensor.read())];
}

describe("moveRouterBias", () => {
  test("gives the published example: counts 10, 2, 4, 8 at gamma 0.001", async () => {
    expect(await moved([0, 0, 0, 0], [10, 2, 4, 8], 0.001)).toEqual([-0.001, 0.001, 0.001, -0.001]);
  });

  test("leaves an expert alone whose load is exactly the mean, also where the mean is no binary fraction", async () => {
    expect(await moved([0.5, 0.5, 0.5], [1, 2, 3], 0.25)).toEqual([0.75, 0.5, 0.25]);
    expect(await moved([1, 1, 1], [7, 7, 7], 0.25)).toEqual([1, 1, 1]);
  });

  test("gamma 0 freezes the bias", async () => {
    expect(await moved([0.1, -0.2], [5, 0], 0)).toEqual([0.1, -0.2]);
  });

  test("moves every bias by gamma towards the mean, or not at all", async () => {
    const loads = fc.array(fc.nat({ max: 2 ** 31 - 1 }), { minLength: 1, maxLength: 20 });
    await fc.assert(
      fc.asyncProperty(loads, async (load) => {
        const bias = await moved(
          load.map(() => 0),
          load,
          1,
        );
        const total = load.reduce((sum, rows) => sum + BigInt(rows), 0n);
        for (const [e, rows] of load.entries()) {
          const excess = BigInt(rows) * BigInt(load.length) - total;
          expect(bias[e]).toBe(excess > 0n ? -1 : excess < 0n ? 1 : 0);
        }
      }),
      { numRuns: 40 },
    );
  });

  test("names a load of another length", () => {
    using _scope = device.scope();
    const bias = device.from([0, 0], [2], "f32");
    expect(() => moveRouterBias(bias, device.from([1], [1], "i32"), 1)).toThrow(
      /load is \[1\], it must be \[2\]/,
    );
  });
});
