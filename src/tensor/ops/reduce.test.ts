import { describe, expect, test } from "vitest";
import { reduceCases } from "../../../test/support/cases/loss.ts";
import { makeOracleDevice } from "../../../test/support/gradient.ts";
import { oracleErrors } from "../../../test/support/oracleError.ts";
import { isWithin, tolerances } from "../../../test/support/tolerance.ts";
import { countPositive, reduceSum } from "./reduce.ts";

const device = makeOracleDevice();

describe("reduceSum and countPositive", () => {
  test.for(reduceCases)("equal a loop in f64: $kernel.name of $name", async (opCase) => {
    const errors = await oracleErrors(opCase, ({ x }, { scale }) => {
      const values = Array.from(x ?? []);
      const isCount = opCase.kernel.name === "countPositive";
      const positive = values.filter((value) => value > 0).length;
      return { y: [isCount ? positive : scale! * values.reduceRight((sum, value) => sum + value, 0)] };
    });
    expect(isWithin(errors["y"]!, tolerances.oracle), JSON.stringify(errors)).toBe(true);
  });

  test("a NaN or infinity anywhere shows in the sum", async () => {
    using _scope = device.scope();
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
      const values = new Float32Array(5000);
      values[4321] = bad;
      expect((await reduceSum(device.from(values, [50, 100], "f32"), 1).read())[0]).toBe(bad);
    }
  });

  test("refuse dtypes they cannot sum", () => {
    using _scope = device.scope();
    expect(() => reduceSum(device.from([1], [1], "i32"), 1)).toThrow(/x is i32, it must be f32 or f64/);
    expect(() => countPositive(device.from([1], [1], "f32"))).toThrow(/x is f32, it must be i32/);
  });
});
