/** Each token through the experts that it was sent to. The way back to tokens is in ./mixture.ts. */
import { ShapeError } from "../../../base/index.ts";
import type { Dtype } from "../../dtype.ts";
import type { Parameter } from "../../parameter.ts";
import { sameShape } from "../../shape.ts";
import type { Tensor } from "../../tensor.ts";
import { type Activation, type RowGroups, sourceOf, tensorsOf } from "../projection/projection.ts";
import { projectionOf } from "../projection/projectionOf.ts";
import { combine } from "./combine.ts";
import { type DispatchPlan, planTensors } from "./dispatch.ts";

/**
 * y[r] = x[token of r] @ w[expert of r]^T, one row per (token, slot).
 *
 * @param x       [T, K]
 * @param w       [E, N, K]
 * @returns       [R, N] with R = T * numExpertsPerTok
 * @throws        {ShapeError} if x, the plan and the weight differ in rows, K or E
 */
export function groupedLinear(x: Activation, w: Parameter, plan: DispatchPlan, dtype: Dtype): Tensor {
  const [N, K] = [w.shape[1]!, w.shape[2]!];
  const source = sourceOf(x);
  const { device } = source;
  const R = plan.rows.size;
  requireExperts(source, plan.slotRow.dim(0), w, plan);
  const projection = projectionOf(w);
  const groups: RowGroups = {
    offsets: plan.offsets,
    count: R,
    filled: null,
    xRows: plan.rows,
    dyRows: null,
  };
  const y = device.empty([R, N], dtype);
  const input = projection.input(x);
  const reads = [...tensorsOf(input), ...planTensors(plan)];
  const make = (): void => projection.forward(input, groups, y);
  make();
  const back = (dy: Tensor | null, before: Tensor | null): Tensor | null => {
    if (dy === null || w.panelsT === null) return null;
    const dRows = device.empty([R, K], source.dtype);
    projection.backInput(dy, groups, dRows);
    return combine(dRows, plan, null, before, source.dtype);
  };
  device.tape?.record({
    op: "groupedLinear",
    inputs: [source],
    outputs: [y],
    saved: reads,
    remakes: [{ outputs: [y], reads, run: make }],
    inputGrad: (dy) => [back(dy, null)],
    inputGradOnto: (before, dy) => [back(dy, before)],
    weightGrad(dy) {
      if (dy !== null && w.grad !== null) projection.backWeight(dy, input, groups);
    },
  });
  return y;
}

/**
 * Checks that x has `rows` rows as wide as the experts' weight takes them, and the plan as many experts.
 *
 * @throws {ShapeError} naming the weight
 */
export function requireExperts(x: Tensor, rows: number, w: Parameter, plan: DispatchPlan): void {
  const [E, , K] = w.shape;
  const experts = plan.offsets.size - 1;
  const wanted = [rows, K!];
  if (sameShape(x.shape, wanted) && experts === E) return;
  const found = `x is [${x.shape.join(", ")}] in a plan of ${experts} experts`;
  throw new ShapeError(`${w.path}: ${found}, the weight is [${w.shape.join(", ")}]`, {
    why: `this plan and this weight take x as [${wanted.join(", ")}] and ${E} experts`,
    fix: "make the plan with planDispatch from the same tokens and for the weight's number of experts",
    fields: { path: w.path, x: x.shape, w: w.shape, wanted, experts },
  });
}
