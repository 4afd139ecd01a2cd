/**
 * From the experts' answers back to tokens: a gather over each token's slots, never a scatter.
 *
 * The order of the sum is fixed: the slots of one expert group ascending, then the groups ascending,
 * then the shared expert, and one rounding at the end. Ranks that hold one group each would add their
 * sums in this order too, so one process and many give the same bits.
 *
 * T tokens, K slots per token, D hidden size.
 *
 * Source: DeepSeek-V3 report, section 2.1.2, eq. (12).
 */

import type { Dtype } from "../../dtype.ts";
import { defineKernel, type Kernel } from "../../kernel.ts";
import { requireShape } from "../../shape.ts";
import type { Tensor } from "../../tensor.ts";
import { cast } from "../elementwise.ts";
import { type DispatchPlan, planTensors } from "./dispatch.ts";

export const combineKernel: Kernel = defineKernel({
  name: "combine",
  operands: {
    expertOut: "in",
    slotRow: "in i32",
    expertIds: "in i32",
    weights: "in?",
    shared: "in?",
    y: "out",
  },
  params: ["T", "K", "D", "groupSize"],
  reference({ expertOut, slotRow, expertIds, weights, shared, y }, { T, K, D, groupSize }) {
    for (let t = 0; t < T; t++) {
      for (let d = 0; d < D; d++) {
        let total = 0;
        for (let k = 0; k < K; ) {
          const group = Math.floor(expertIds[t * K + k]! / groupSize);
          let sum = 0;
          for (; k < K && Math.floor(expertIds[t * K + k]! / groupSize) === group; k++) {
            sum += (weights?.[t * K + k] ?? 1) * expertOut[slotRow[t * K + k]! * D + d]!;
          }
          total += sum;
        }
        y[t * D + d] = total + (shared?.[t * D + d] ?? 0);
      }
    }
  },
  flops: ({ T, K, D }) => 2 * T * K * D,
});

export const combineBackwardKernel: Kernel = defineKernel({
  name: "combineBackward",
  operands: {
    dy: "in",
    expertOut: "in",
    slotRow: "in i32",
    weights: "in",
    dExpertOut: "out",
    dWeights: "out",
  },
  params: ["T", "K", "D"],
  reference({ dy, expertOut, slotRow, weights, dExpertOut, dWeights }, { T, K, D }) {
    for (let t = 0; t < T; t++) {
      for (let k = 0; k < K; k++) {
        const row = slotRow[t * K + k]! * D;
        let dot = 0;
        for (let d = 0; d < D; d++) {
          dot += dy[t * D + d]! * expertOut[row + d]!;
          dExpertOut[row + d] = weights[t * K + k]! * dy[t * D + d]!;
        }
        dWeights[t * K + k] = dot;
      }
    }
  },
  flops: ({ T, K, D }) => 3 * T * K * D,
});

/**
 * y[t] = sum over t's slots of weight * expert's answer (+ shared[t]).
 *
 * @param expertOut  [T * K, D], rows in the plan's order
 * @param weights    [T, K] f32, in the order of the plan's expertIds
 * @param shared     [T, D], the shared expert's answer; added unweighted
 * @param dtype      of y
 * @returns          [T, D]
 * @throws           {ShapeError} if an operand does not fit the plan
 */
export function combine(
  expertOut: Tensor,
  plan: DispatchPlan,
  weights: Tensor,
  shared: Tensor | null,
  dtype: Dtype,
): Tensor {
  const { device } = expertOut;
  const { slotRow, expertIds, groupSize } = plan;
  const [T, K, D] = [slotRow.dim(0), slotRow.dim(-1), expertOut.dim(-1)];
  requireShape(expertOut, [T * K, D], "combine: expertOut");
  requireShape(weights, [T, K], "combine: weights");
  if (shared !== null) requireShape(shared, [T, D], "combine: shared");
  const y = device.empty([T, D], dtype);
  const operands = { expertOut, slotRow, expertIds, weights, shared, y };
  device.run(combineKernel, operands, { T, K, D, groupSize });
  device.tape?.record({
    op: "combine",
    inputs: [expertOut, weights, shared],
    outputs: [y],
    saved: [expertOut, weights, ...planTensors(plan)],
    inputGrad(dy) {
      if (dy === null) return [null, null, null];
      const dExpertOut = device.empty(expertOut.shape, expertOut.dtype);
      const dWeights = device.empty(weights.shape, weights.dtype);
      const back = { dy, expertOut, slotRow, weights, dExpertOut, dWeights };
      device.run(combineBackwardKernel, back, { T, K, D });
      return [dExpertOut, dWeights, shared === null ? null : cast(dy, shared.dtype)];
    },
  });
  return y;
}

/**
 * y[t] = sum of t's rows, enqueued as it stands: no tape.
 *
 * @param rows   [T * K, D] in the plan's order
 * @param dtype  of y
 * @returns      [T, D]
 */
export function gatherSum(rows: Tensor, plan: DispatchPlan, dtype: Dtype): Tensor {
  const { slotRow, expertIds, groupSize } = plan;
  const [T, K, D] = [slotRow.dim(0), slotRow.dim(-1), rows.dim(-1)];
  requireShape(rows, [T * K, D], "gatherSum: rows");
  const y = rows.device.empty([T, D], dtype);
  const operands = { expertOut: rows, slotRow, expertIds, weights: null, shared: null, y };
  rows.device.run(combineKernel, operands, { T, K, D, groupSize });
  return y;
}

export const combineKernels: readonly Kernel[] = [combineKernel, combineBackwardKernel];
