/**
 * The experts' answers, each weighed by its gate, and the shared expert's: y = sum of g_e W_e h_e + shared.
 *
 * On the way back the gate's gradient is dy . (W h) = (W^T dy) . h: taken where rows are F wide, it needs no answer,
 * so answers live only until they are summed. The weights' gradient is dy^T (g h): g enters on the narrow side too, and
 * dy is gathered from tokens by the products themselves, never copied slot by slot.
 *
 * T tokens, K slots per token, D hidden size, F width of an expert.
 *
 * Source: DeepSeek-V3 report, section 2.1.2, eq. (12).
 */
import type { Dtype } from "../../dtype.ts";
import { defineKernel, type Kernel } from "../../kernel.ts";
import type { Parameter } from "../../parameter.ts";
import { requireShape } from "../../shape.ts";
import type { Tensor } from "../../tensor.ts";
import { cast, fill } from "../elementwise.ts";
import type { RowGroups } from "../projection/projection.ts";
import { projectionOf } from "../projection/projectionOf.ts";
import { combine } from "./combine.ts";
import { type DispatchPlan, planTensors } from "./dispatch.ts";
import { requireExperts } from "./groupedLinear.ts";

export const mixtureBackwardKernel: Kernel = defineKernel({
  name: "mixtureBackward",
  operands: {
    dHidden: "inout",
    hidden: "in",
    slotRow: "in? i32",
    weights: "in",
    dWeights: "out",
    count: "in? i32",
  },
  params: ["T", "K", "F"],
  reference({ dHidden, hidden, slotRow, weights, dWeights, count }, { T, K, F }) {
    for (let slot = 0; slot < (count?.[0] ?? T * K); slot++) {
      const row = (slotRow?.[slot] ?? slot) * F;
      let dot = 0;
      for (let i = row; i < row + F; i++) {
        dot += dHidden[i]! * hidden[i]!;
        dHidden[i] = weights[slot]! * dHidden[i]!;
      }
      dWeights[slot] = dot;
    }
  },
  flops: ({ T, K, F }) => 3 * T * K * F,
});

export const weighRowsKernel: Kernel = defineKernel({
  name: "weighRows",
  operands: { x: "in", slotRow: "in? i32", weights: "in", y: "out", count: "in? i32" },
  params: ["T", "K", "F"],
  reference({ x, slotRow, weights, y, count }, { T, K, F }) {
    for (let slot = 0; slot < (count?.[0] ?? T * K); slot++) {
      const row = (slotRow?.[slot] ?? slot) * F;
      for (let i = row; i < row + F; i++) y[i] = weights[slot]! * x[i]!;
    }
  },
  flops: ({ T, K, F }) => T * K * F,
});

/**
 * y[t] = sum over t's slots of weight * (hidden[row] @ w[expert]^T) (+ shared[t]).
 *
 * @param hidden   [T * K, F], rows in the plan's order
 * @param w        [E, D, F]
 * @param weights  [T, K] f32, in the order of the plan's expertIds
 * @param shared   [T, D], added unweighted
 * @param dtype    of the answers and of y
 * @returns        [T, D]
 * @throws         {ShapeError} if an operand does not fit the plan or the weight
 */
export function mixture(
  hidden: Tensor,
  w: Parameter,
  plan: DispatchPlan,
  weights: Tensor,
  shared: Tensor | null,
  dtype: Dtype,
): Tensor {
  const { device } = hidden;
  const { slotRow, offsets, rows: tokens } = plan;
  const [D, F] = [w.shape[1]!, w.shape[2]!];
  const [T, K] = [slotRow.dim(0), slotRow.dim(-1)];
  const R = T * K;
  requireExperts(hidden, R, w, plan);
  requireShape(weights, [T, K], "mixture: weights");
  const projection = projectionOf(w);
  const groups: RowGroups = { offsets, count: R, filled: null, xRows: null, dyRows: tokens };
  using answers = device.temporary([R, D], dtype);
  projection.forward(hidden, groups, answers);
  const y = combine(answers, plan, weights, shared, dtype);
  device.tape?.record({
    op: "mixture",
    inputs: [hidden, weights, shared],
    outputs: [y],
    saved: [hidden, weights, ...planTensors(plan)],
    inputGrad(dy) {
      if (dy === null) return [null, null, null];
      const dShared = shared === null ? null : cast(dy, shared.dtype);
      if (w.panelsT === null) return [null, null, dShared];
      const dHidden = device.empty(hidden.shape, hidden.dtype);
      const dWeights = device.empty(weights.shape, weights.dtype);
      projection.backInput(dy, groups, dHidden);
      const weigh = { dHidden, hidden, slotRow, weights, dWeights, count: null };
      device.run(mixtureBackwardKernel, weigh, { T, K, F });
      return [dHidden, dWeights, dShared];
    },
    weightGrad(dy) {
      if (dy === null || w.grad === null) return;
      const weighed = device.empty(hidden.shape, hidden.dtype);
      const weigh = { x: hidden, slotRow, weights, y: weighed, count: null };
      device.run(weighRowsKernel, weigh, { T, K, F });
      projection.backWeight(dy, weighed, groups);
    },
  });
  return y;
}

/**
 * Puts each slot's number at its row, as [R].
 *
 * @param values  [T, K], a number for each slot
 */
export function spreadToRows(values: Tensor, { slotRow }: DispatchPlan): Tensor {
  const { device } = values;
  const [T, K] = [slotRow.dim(0), slotRow.dim(-1)];
  requireShape(values, [T, K], "spreadToRows: values");
  using ones = device.temporary([T * K], values.dtype);
  fill(ones, 1);
  const y = device.empty([T * K], values.dtype);
  device.run(weighRowsKernel, { x: ones, slotRow, weights: values, y, count: null }, { T, K, F: 1 });
  return y;
}

export const mixtureKernels: readonly Kernel[] = [mixtureBackwardKernel, weighRowsKernel];
