import { describe, expect, test } from "vitest";
import { project, sortedSlots } from "../../../../test/oracle/moe.ts";
import { gradientError, makeOracleDevice } from "../../../../test/support/gradient.ts";
import { normals } from "../../../../test/support/random.ts";
import { distance, isWithin, tolerances } from "../../../../test/support/tolerance.ts";
import { ShapeError } from "../../../base/index.ts";
import { Parameter } from "../../parameter.ts";
import type { Shape } from "../../shape.ts";
import { planDispatch } from "./dispatch.ts";
import { groupedLinear } from "./groupedLinear.ts";

const device = makeOracleDevice();
const E = 5;
/** Expert 3 gets no token. */
const IDS = [
  [0, 2],
  [2, 4],
  [0, 1],
  [1, 2],
];
const [T, K] = [IDS.length, 2];
const R = T * K;

function makeExperts(shape: Shape, seed: number): Parameter {
  const options = { compute: "f64", master: "f64", isTrained: true } as const;
  const weight = Parameter.make(device, "test.experts", shape, options);
  weight.master.write(normals(weight.size, seed));
  weight.repack();
  return weight;
}

function makePlan() {
  return planDispatch(device.from(IDS.flat(), [T, K], "i32"), E, 1);
}

describe("groupedLinear", () => {
  test("multiplies each token's row by each of its experts' weights", async () => {
    const [N, width] = [35, 7];
    const weight = makeExperts([E, N, width], 1);
    const x = normals(T * width, 2);
    const y = groupedLinear(device.from(x, [T, width], "f64"), weight, makePlan(), "f64");
    const w = await weight.master.read();
    const expected = sortedSlots(IDS).flatMap(({ token, expert }) => {
      const source = token * width;
      return project(w, expert * N * width, [...x.slice(source, source + width)], N);
    });
    expect(y.shape).toEqual([R, N]);
    expect(isWithin(distance(await y.read(), expected), tolerances.oracle)).toBe(true);
  });

  test("hands back the gradients of tokens and experts", async () => {
    const weight = makeExperts([E, 3, 4], 3);
    const x = device.from(normals(T * 4, 4), [T, 4], "f64");
    const plan = makePlan();
    const { worst, of } = await gradientError(device, {
      inputs: [x],
      parameters: [weight],
      build: () => [groupedLinear(x, weight, plan, "f64")],
    });
    expect(worst, of).toBeLessThan(1e-8);
    const grad = await weight.grad!.read();
    expect(
      grad.slice(3 * 12, 4 * 12).every((value) => value === 0),
      "expert 3 saw no token",
    ).toBe(true);
  });

  test("names the weight when rows, width or number of experts do not fit", () => {
    using _scope = device.scope();
    const weight = makeExperts([E, 3, 4], 5);
    const plan = makePlan();
    const x = (rows: number, width: number) =>
      device.from(new Float64Array(rows * width), [rows, width], "f64");
    expect(() => groupedLinear(x(T, 3), weight, plan, "f64")).toThrow(ShapeError);
    expect(() => groupedLinear(x(R, 4), weight, plan, "f64")).toThrow(/x as \[4, 4\]/);
    const fewer = planDispatch(device.from([0, 1], [1, 2], "i32"), 2, 1);
    expect(() => groupedLinear(x(1, 4), weight, fewer, "f64")).toThrowErrorMatchingInlineSnapshot(`
      [ShapeError: test.experts: x is [1, 4] in a plan of 2 experts, the weight is [5, 3, 4]
        why: this plan and this weight take x as [1, 4] and 5 experts
        fix: make the plan with planDispatch from the same tokens and for the weight's number of experts]
    `);
  });
});
