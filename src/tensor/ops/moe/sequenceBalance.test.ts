import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { balanceLoss } from "../../../../test/oracle/moe.ts";
import { makeOracleDevice } from "../../../../test/support/gradient.ts";
import { normals } from "../../../../test/support/random.ts";
import { distance, isWithin, tolerances } from "../../../../test/support/tolerance.ts";
import { DtypeError } from "../../../base/index.ts";
import { Tape } from "../../tape.ts";
import { type SequenceBalanceOptions, sequenceBalanceLoss } from "./sequenceBalance.ts";

const device = makeOracleDevice();

function affinities(T: number, E: number, seed: number): number[] {
  return [...normals(T * E, seed)].map((x) => 1 / (1 + Math.exp(-x)));
}

function rowsOf(flat: readonly number[], E: number): number[][] {
  return Array.from({ length: flat.length / E }, (_, t) => flat.slice(t * E, (t + 1) * E));
}

async function lossOf(
  affinity: readonly number[],
  E: number,
  seqOffsets: readonly number[],
  options: SequenceBalanceOptions,
): Promise<number> {
  using _scope = device.scope();
  const s = device.from(affinity, [affinity.length / E, E], "f64");
  const offsets = device.from(seqOffsets, [seqOffsets.length], "i32");
  return (await sequenceBalanceLoss(s, offsets, options).read())[0]!;
}

describe("sequenceBalanceLoss", () => {
  test("is alpha when the load is even", async () => {
    // Four tokens, each with one favourite of four experts: f = 1 for all, and P sums to 1.
    const affinity = [0, 1, 2, 3].flatMap((t) => [0, 1, 2, 3].map((e) => (e === t ? 0.9 : 0.1)));
    expect(await lossOf(affinity, 4, [0, 4], { topK: 1, alpha: 1e-4 })).toBeCloseTo(1e-4, 15);
  });

  test("is alpha times E / K when all tokens send all affinity to the same K", async () => {
    const affinity = Array.from({ length: 6 }, () => [1, 1, 0, 0, 0, 0]).flat();
    expect(await lossOf(affinity, 6, [0, 6], { topK: 2, alpha: 1 })).toBeCloseTo(3, 12);
  });

  test("equals the oracle for any cut into sequences, empty ones included", async () => {
    const problem = fc.record({
      E: fc.integer({ min: 2, max: 9 }),
      K: fc.integer({ min: 1, max: 2 }),
      lengths: fc.array(fc.integer({ min: 0, max: 5 }), { minLength: 1, maxLength: 5 }),
      seed: fc.nat(),
    });
    await fc.assert(
      fc.asyncProperty(problem, async ({ E, K, lengths, seed }) => {
        const offsets = [0];
        for (const length of lengths) offsets.push(offsets.at(-1)! + length);
        const affinity = affinities(offsets.at(-1)!, E, seed);
        const found = await lossOf(affinity, E, offsets, { topK: K, alpha: 0.01 });
        const expected = balanceLoss(rowsOf(affinity, E), offsets, K, 0.01);
        expect(isWithin(distance([found], [expected]), tolerances.oracle)).toBe(true);
      }),
      { numRuns: 60 },
    );
  });

  test("is zero without any token", async () => {
    expect(await lossOf([], 4, [0, 0, 0], { topK: 2, alpha: 1 })).toBe(0);
  });

  test("leaves tokens outside every sequence out", async () => {
    const affinity = affinities(7, 5, 3);
    const options = { topK: 2, alpha: 1 };
    expect(await lossOf(affinity, 5, [0, 4], options)).toBe(
      await lossOf(affinity.slice(0, 20), 5, [0, 4], options),
    );
  });

  test("a NaN affinity makes it NaN", async () => {
    const affinity = affinities(3, 4, 4).with(5, Number.NaN);
    expect(await lossOf(affinity, 4, [0, 3], { topK: 2, alpha: 1 })).toBeNaN();
  });

  test("hands back its own gradient, with f held constant", async () => {
    const [E, offsets, options] = [6, [0, 3, 3, 8], { topK: 2, alpha: 0.5 }] as const;
    const values = affinities(9, E, 5);
    using tape = new Tape(device);
    using _scope = device.scope();
    const affinity = device.from(values, [9, E], "f64");
    const seqOffsets = device.from(offsets, [offsets.length], "i32");
    const loss = device.withTape(tape, () => sequenceBalanceLoss(affinity, seqOffsets, options));
    tape.watch(affinity);
    tape.seed(loss, device.from([1], [1], "f64"));
    tape.backward();
    const analytic = await tape.gradOf(affinity)!.read();
    // Steps too small to change any choice, so that f is constant for the difference as well.
    const numeric = values.map((value, i) => {
      const at = (h: number): number =>
        balanceLoss(rowsOf(values.with(i, value + h), E), offsets, options.topK, options.alpha);
      const h = 1e-4;
      return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
    });
    expect(distance(analytic, numeric).frobenius).toBeLessThan(1e-6);
    expect(analytic.slice(8 * E).every((gradient) => gradient === 0)).toBe(true);
  });

  test("refuses operands of the wrong dtype", () => {
    using _scope = device.scope();
    const offsets = device.from([0, 1], [2], "i32");
    const halves = device.from([0, 0], [1, 2], "bf16");
    expect(() => sequenceBalanceLoss(halves, offsets, { topK: 1, alpha: 1 })).toThrow(DtypeError);
    const floats = device.from([0, 0], [1, 2], "f32");
    expect(() => sequenceBalanceLoss(floats, floats, { topK: 1, alpha: 1 })).toThrow(/seqOffsets is f32/);
  });
});
