import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  distributionOracle,
  drawOracle,
  type Filters,
  uniformOracle,
} from "../../../test/oracle/sampling.ts";
import { sampleCases } from "../../../test/support/cases/sampling.ts";
import { makeOracleDevice } from "../../../test/support/gradient.ts";
import { runCase } from "../../../test/support/opCase.ts";
import { normals } from "../../../test/support/random.ts";
import { ConfigError } from "../../base/index.ts";
import { type SampleSettings, sampleToken } from "./sample.ts";

const device = makeOracleDevice();

const off: SampleSettings = { temperature: 1, topK: 0, topP: 1, seed: 1, counter: 0 };

/** Tokens of draws 0 to `count`. */
async function drawMany(logits: ArrayLike<number>, filters: Filters, count: number): Promise<number[]> {
  using _scope = device.scope();
  const tensor = device.from(logits, [1, logits.length], "f64");
  const settings = Array.from({ length: count }, (_, counter) => ({ ...off, ...filters, seed: 42, counter }));
  const tokens = settings.map((each) => sampleToken(tensor, 0, each).read());
  return (await Promise.all(tokens)).map(([token]) => token!);
}

describe("sampleToken", () => {
  test.for(sampleCases)("its reference equals the oracle: $name", async (opCase) => {
    const { V, row, temperature, topK, topP, seed, counter } = opCase.params as unknown as Record<
      keyof SampleSettings | "V" | "row",
      number
    >;
    const { token } = await runCase(device, opCase);
    const logits = Float32Array.from(opCase.operands["logits"]?.values ?? []);
    const expected = drawOracle(
      logits.subarray(row * V, (row + 1) * V),
      { temperature, topK, topP },
      seed,
      counter,
    );
    expect(token![0]).toBe(expected);
  });

  test.for([
    { temperature: 1, topK: 0, topP: 1, limit: 36.1 },
    { temperature: 0.7, topK: 0, topP: 1, limit: 36.1 },
    { temperature: 1.3, topK: 6, topP: 1, limit: 20.5 },
    { temperature: 1, topK: 0, topP: 0.8, limit: 36.1 },
    { temperature: 0.9, topK: 9, topP: 0.9, limit: 36.1 },
  ])("draws as often as the distribution says (chi-square): %o", async ({ limit, ...filters }) => {
    // Limits: exceeded once in a thousand times at 14 (5 with top-6) degrees of freedom or fewer.
    const logits = normals(15, 3);
    const probabilities = distributionOracle(logits, filters);
    const count = 3000;
    const tokens = await drawMany(logits, filters, count);
    const chiSquare = probabilities.reduce((sum, p, id) => {
      const seen = tokens.filter((token) => token === id).length;
      expect(p > 0 || seen === 0, `token ${id} has no probability`).toBe(true);
      return p === 0 ? sum : sum + (seen - count * p) ** 2 / (count * p);
    }, 0);
    expect(chiSquare).toBeLessThan(limit);
  });

  test("never leaves the support of top-k and top-p, and reaches all of it", async () => {
    const logits = fc.array(fc.integer({ min: -3, max: 3 }), { minLength: 1, maxLength: 8 });
    const filters = fc.record({
      temperature: fc.constantFrom(0.5, 1, 4),
      topK: fc.integer({ min: 0, max: 9 }),
      topP: fc.constantFrom(0, 0.3, 0.5, 0.75, 0.95, 1),
    });
    await fc.assert(
      fc.asyncProperty(logits, filters, async (values, each) => {
        const probabilities = distributionOracle(values, each);
        const tokens = new Set(await drawMany(values, each, 60));
        for (const token of tokens) expect(probabilities[token]).toBeGreaterThan(0);
        // 60 draws miss a token of probability 1/4 once in thirty million times.
        for (const [id, p] of probabilities.entries()) if (p >= 0.25) expect(tokens).toContain(id);
      }),
      { numRuns: 60, seed: 5 },
    );
  });

  test("the same seed and counter draw alike, whatever was drawn before; others do not", async () => {
    using _scope = device.scope();
    const logits = device.from(new Float64Array(1000), [1, 1000], "f64");
    const draw = async (seed: number, counter: number): Promise<number> =>
      (await sampleToken(logits, 0, { ...off, seed, counter }).read())[0]!;
    expect(await draw(3, 9)).toBe(Math.floor(1000 * uniformOracle(3, 9)));
    expect(await draw(3, 10)).toBe(Math.floor(1000 * uniformOracle(3, 10)));
    expect(await draw(3, 9)).not.toBe(await draw(3, 10));
    expect(await draw(3, 9)).not.toBe(await draw(4, 9));
    expect(await draw(3, 9)).not.toBe(await draw(3 + 2 ** 32, 9));
  });

  test("impossible settings are refused by name before anything runs", () => {
    using _scope = device.scope();
    const logits = device.from([1, 2], [1, 2], "f32");
    const refused = {
      temperature: [-1, Number.NaN, Infinity],
      topK: [-1, 1.5],
      topP: [-0.1, 1.1],
      seed: [-1, 0.5],
    };
    for (const [name, values] of Object.entries(refused)) {
      for (const value of values) {
        const attempt = () => sampleToken(logits, 0, { ...off, [name]: value });
        expect(attempt).toThrow(ConfigError);
        expect(attempt).toThrow(new RegExp(`^${name} is ${value}\n`));
      }
    }
    expect(() => sampleToken(logits, 0, { ...off, topP: 2 })).toThrowErrorMatchingInlineSnapshot(`
      [ConfigError: topP is 2
        why: topP must be between 0 and 1, 1 to switch it off
        fix: set topP to 0.95, for instance]
    `);
  });
});
