import { describe, expect, test } from "vitest";
import { optimOracles } from "../../../../test/oracle/optim.ts";
import { emaCases } from "../../../../test/support/cases/optim.ts";
import { makeOracleDevice } from "../../../../test/support/gradient.ts";
import { oracleErrors } from "../../../../test/support/oracleError.ts";
import { isWithin, tolerances } from "../../../../test/support/tolerance.ts";
import { ema } from "./ema.ts";

const device = makeOracleDevice();

describe("ema", () => {
  test.for(emaCases)("equals its equation in f64: $name", async (opCase) => {
    const errors = await oracleErrors(opCase, optimOracles["ema"]!);
    expect(isWithin(errors["ema"]!, tolerances.oracle), JSON.stringify(errors)).toBe(true);
  });

  test("weights that stand still are a fixed point to the bit", async () => {
    using _scope = device.scope();
    const values = Float32Array.from([0.1, -3.7, 1e-20, 12345.678]);
    const [average, w] = [device.from(values, [4], "f32"), device.from(values, [4], "f32")];
    for (let i = 0; i < 100; i++) ema(average, w, 0.9999);
    expect([...(await average.read())]).toEqual([...values]);
  });

  test("names both shapes when they differ", () => {
    using _scope = device.scope();
    const [average, w] = [device.from([1, 2], [2], "f32"), device.from([1, 2], [1, 2], "f32")];
    expect(() => ema(average, w, 0.5)).toThrow(/average is \[2\], it must be \[1, 2\]/);
  });
});
