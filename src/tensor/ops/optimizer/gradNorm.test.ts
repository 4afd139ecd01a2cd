import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { optimOracles } from "../../../../test/oracle/optim.ts";
import { gradNormCases } from "../../../../test/support/cases/optim.ts";
import { makeOracleDevice } from "../../../../test/support/gradient.ts";
import { oracleErrors } from "../../../../test/support/oracleError.ts";
import { isWithin, tolerances } from "../../../../test/support/tolerance.ts";
import { globalGradNorm } from "./gradNorm.ts";

const device = makeOracleDevice();

describe("globalGradNorm", () => {
  test.for(gradNormCases)("$kernel.name equals a loop in f64: $name", async (opCase) => {
    for (const error of Object.values(await oracleErrors(opCase, optimOracles[opCase.kernel.name]!))) {
      expect(isWithin(error, tolerances.oracle), JSON.stringify(error)).toBe(true);
    }
  });

  test("is the length of all gradients as one vector, whatever their shapes", async () => {
    // Thousandths: the square of a number next to zero would be zero.
    const value = fc.integer({ min: -1e6, max: 1e6 }).map((thousandths) => thousandths / 1e3);
    const vectors = fc.array(fc.array(value, { maxLength: 30 }), { minLength: 1, maxLength: 20 });
    await fc.assert(
      fc.asyncProperty(vectors, async (grads) => {
        using _scope = device.scope();
        const tensors = grads.map((values) => device.from(values, [1, values.length], "f64"));
        const [norm] = await globalGradNorm(tensors).read();
        const expected = Math.hypot(...grads.flat());
        expect(Math.abs(norm! - expected)).toBeLessThanOrEqual(1e-12 * expected);
      }),
      { numRuns: 50 },
    );
  });

  test("keeps a NaN or infinity of any gradient", async () => {
    using _scope = device.scope();
    const normWith = async (value: number): Promise<number> => {
      const grads = [1, 2, value, 3].map((x) => device.from([x], [1], "f32"));
      return (await globalGradNorm(grads).read())[0]!;
    };
    expect(await normWith(Number.NaN)).toBeNaN();
    expect(await normWith(Number.NEGATIVE_INFINITY)).toBe(Number.POSITIVE_INFINITY);
  });

  test("gives its partials back", () => {
    const grads = [device.from([1, 2], [2], "f32")];
    const live = device.arena.liveBytes;
    {
      using _scope = device.scope();
      globalGradNorm(grads);
    }
    expect(device.arena.liveBytes).toBe(live);
  });
});
