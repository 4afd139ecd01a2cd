import { describe, expect, test } from "vitest";
import { pointwiseCases } from "../support/cases/pointwise/index.ts";
import { oracleErrors } from "../support/oracleError.ts";
import { isWithin, tolerances } from "../support/tolerance.ts";
import { pointwiseOracles } from "./pointwise.ts";

describe("pointwise references in f64 equal the equations", () => {
  test.for(pointwiseCases.map((opCase) => [opCase.kernel.name, opCase.name, opCase] as const))(
    "%s: %s",
    async ([name, , opCase]) => {
      const oracle = pointwiseOracles[name];
      expect(oracle, `an oracle for ${name}`).toBeDefined();
      for (const [output, error] of Object.entries(await oracleErrors(opCase, oracle!))) {
        expect(isWithin(error, tolerances.oracle), `${output}: ${JSON.stringify(error)}`).toBe(true);
      }
    },
  );

  test("every oracle has cases", () => {
    const covered = new Set(pointwiseCases.map((opCase) => opCase.kernel.name));
    expect([...covered].sort()).toEqual(Object.keys(pointwiseOracles).sort());
  });
});
