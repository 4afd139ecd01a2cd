import { describe, expect, test } from "vitest";
import { mixture as oracleMixture, project, sortedSlots } from "../../../../test/oracle/moe.ts";
import { gradientError, makeOracleDevice } from "../../../../test/support/gradient.ts";
import { normals } from "../../../../test/support/random.ts";
import { distance, isWithin, tolerances } from "../../../../test/support/tolerance.ts";
import { ShapeError } from "../../../base/index.ts";
import { Parameter } from "../../parameter.ts";
import { planDispatch } from "./dispatch.ts";
import { mixture } from "./mixture.ts";

const device = makeOracleDevice();
const [E, K, D, F] = [6, 3, 5, 7];
/** Expert 4 gets one token, expert 0 two. */
const IDS = [
  [0, 2, 5],
  [1, 2, 3],
  [0, 1, 2],
  [3, 4, 5],
];
const T = IDS.length;

function makeExperts(seed: number, isTrained: boolean = true): Parameter {
  const weight = Parameter.make(device, "test.downProj", [E, D, F], {
    compute: "f64",
    master: "f64",
    isTrained,
  });
  weight.master.write(normals(weight.size, seed));
  weight.repack();
  return weight;
}

function makeInputs(groupSize: number) {
  return {
    hidden: device.from(normals(T * K * F, 1), [T * K, F], "f64"),
    weights: device.from(normals(T * K, 2), [T, K], "f64"),
    shared: device.from(normals(T * D, 3), [T, D], "f64"),
    plan: planDispatch(device.from(IDS.flat(), [T, K], "i32"), E, groupSize),
  };
}

describe("mixture", () => {
  test.each([1, 2, 6])(
    "is eq. (12): gates times answers plus the shared one (groups of %i)",
    async (groupSize) => {
      using _scope = device.scope();
      const { hidden, weights, shared, plan } = makeInputs(groupSize);
      const w = makeExperts(4);
      const y = await mixture(hidden, w, plan, weights, shared, "f64").read();
      const [h, g, s, master] = await Promise.all(
        [hidden, weights, shared, w.master].map((tensor) => tensor.read()),
      );
      const order = sortedSlots(IDS);
      const answers = order.map(({ expert }, row) =>
        project(master!, expert * D * F, [...h!.slice(row * F, (row + 1) * F)], D),
      );
      const rowOf = (t: number, e: number): number =>
        order.findIndex(({ token, expert }) => token === t && expert === e);
      const expected = oracleMixture(
        IDS.map((expertIds, t) => ({ expertIds, weights: [...g!.slice(t * K, (t + 1) * K)] })),
        (t, e, d) => answers[rowOf(t, e)]![d]!,
        (t, d) => s![t * D + d]!,
        D,
      );
      expect(isWithin(distance(y, expected), tolerances.oracle)).toBe(true);
    },
  );

  test.each([true, false])(
    "hands back the gradients of hidden rows, gates, experts and the shared answer (%s)",
    async (hasShared) => {
      const { hidden, weights, shared, plan } = makeInputs(2);
      const w = makeExperts(5);
      const { worst, of } = await gradientError(device, {
        inputs: [hidden, weights, ...(hasShared ? [shared] : [])],
        parameters: [w],
        build: () => [mixture(hidden, w, plan, weights, hasShared ? shared : null, "f64")],
      });
      expect(worst, of).toBeLessThan(1e-8);
    },
  );

  test("holds no answer once they are summed", () => {
    const { hidden, weights, shared, plan } = makeInputs(2);
    const w = makeExperts(6);
    using _scope = device.scope();
    const before = device.arena.liveCount;
    const y = mixture(hidden, w, plan, weights, shared, "f64");
    expect([y.shape, device.arena.liveCount - before]).toEqual([[T, D], 1]);
  });

  test("names the operand that does not fit", () => {
    using _scope = device.scope();
    const { hidden, weights, shared, plan } = makeInputs(2);
    const w = makeExperts(7);
    const wrong = device.from(new Float64Array(8), [2, 4], "f64");
    expect(() => mixture(wrong, w, plan, weights, shared, "f64")).toThrow(ShapeError);
    expect(() => mixture(wrong, w, plan, weights, shared, "f64")).toThrow(/test\.downProj: x is \[2, 4\]/);
    expect(() => mixture(hidden, w, plan, wrong, shared, "f64")).toThrow(/mixture: weights is \[2, 4\]/);
    expect(() => mixture(hidden, w, plan, weights, wrong, "f64")).toThrow(/combine: shared is \[2, 4\]/);
  });
});
