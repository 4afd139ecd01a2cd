import { describe, expect, test } from "vitest";
import { mixture, sortedSlots } from "../../../../test/oracle/moe.ts";
import { makeOracleDevice } from "../../../../test/support/gradient.ts";
import { normals } from "../../../../test/support/random.ts";
import { distance, isWithin, tolerances } from "../../../../test/support/tolerance.ts";
import { ShapeError } from "../../../base/index.ts";
import { combine } from "./combine.ts";
import { planDispatch } from "./dispatch.ts";

const device = makeOracleDevice();
const E = 6;
const K = 3;
const D = 5;
const IDS = [
  [0, 2, 5],
  [1, 2, 3],
  [0, 1, 2],
  [3, 4, 5],
];
const T = IDS.length;

function makePlan(groupSize: number) {
  return planDispatch(device.from(IDS.flat(), [T, K], "i32"), E, groupSize);
}

describe("combine", () => {
  test.each([1, 2, 6])(
    "equals the weighted sum of the experts' answers plus the shared one (groups of %i)",
    async (groupSize) => {
      using _scope = device.scope();
      const [answers, gates, shared] = [normals(T * K * D, 1), normals(T * K, 2), normals(T * D, 3)];
      const plan = makePlan(groupSize);
      const y = combine(
        device.from(answers, [T * K, D], "f64"),
        plan,
        device.from(gates, [T, K], "f64"),
        device.from(shared, [T, D], "f64"),
        "f64",
      );
      const order = sortedSlots(IDS);
      const rowOf = (t: number, e: number): number =>
        order.findIndex(({ token, expert }) => token === t && expert === e);
      const expected = mixture(
        IDS.map((expertIds, t) => ({ expertIds, weights: [...gates.slice(t * K, (t + 1) * K)] })),
        (t, e, d) => answers[rowOf(t, e) * D + d]!,
        (t, d) => shared[t * D + d]!,
        D,
      );
      expect(isWithin(distance(await y.read(), expected), tolerances.oracle)).toBe(true);
    },
  );

  test("adds within a group first, then over groups", async () => {
    // In one chain 1 + 1e16 - 1e16 is 0; with experts 2 and 3 in a group of their own it is 1.
    using _scope = device.scope();
    const rows = device.from([1, 1e16, -1e16], [3, 1], "f64");
    const weights = device.from([1, 1, 1], [1, 3], "f64");
    const summed = async (groupSize: number): Promise<number> => {
      const plan = planDispatch(device.from([0, 2, 3], [1, 3], "i32"), 4, groupSize);
      return (await combine(rows, plan, weights, null, "f64").read())[0]!;
    };
    expect(await summed(4)).toBe(0);
    expect(await summed(2)).toBe(1);
  });

  test("rounds once, at the end", async () => {
    using _scope = device.scope();
    // 2^-9 is a quarter of the bf16 unit above 1: rounded after each sum, all three would vanish.
    const plan = planDispatch(device.from([0, 1, 2, 3], [1, 4], "i32"), 4, 4);
    const rows = device.from([1, 2 ** -9, 2 ** -9, 2 ** -9], [4, 1], "bf16");
    const weights = device.from([1, 1, 1, 1], [1, 4], "f32");
    expect((await combine(rows, plan, weights, null, "bf16").read())[0]).toBe(1 + 2 ** -7);
  });

  test("names the operand that does not fit the plan", () => {
    using _scope = device.scope();
    const plan = makePlan(2);
    const rows = device.from(new Float64Array(T * K * D), [T * K, D], "f64");
    const weights = device.from(new Float64Array(T * K), [T, K], "f64");
    const wrong = device.from(new Float64Array(8), [2, 4], "f64");
    expect(() => combine(wrong, plan, weights, null, "f64")).toThrow(ShapeError);
    expect(() => combine(rows, plan, wrong, null, "f64")).toThrow(/combine: weights is \[2, 4\]/);
    expect(() => combine(rows, plan, weights, wrong, "f64")).toThrow(/combine: shared is \[2, 4\]/);
  });

  test("sums with weight one where no weights are given", async () => {
    using _scope = device.scope();
    const rows = normals(T * K * D, 7);
    const y = await combine(device.from(rows, [T * K, D], "f64"), makePlan(2), null, null, "f64").read();
    const order = sortedSlots(IDS);
    for (let t = 0; t < T; t++) {
      for (let d = 0; d < D; d++) {
        const expected = order.reduce(
          (sum, { token }, row) => sum + (token === t ? rows[row * D + d]! : 0),
          0,
        );
        expect(y[t * D + d]).toBeCloseTo(expected, 12);
      }
    }
  });
});
