/**
 * From chosen experts to rows sorted by expert, and back.
 *
 * Nothing here has a shape that depends on data: T tokens with K slots each make exactly T * K rows.
 */

import type { Dtype } from "../dtype.ts";
import type { Tensor } from "../tensor.ts";

/** Where each (token, slot) goes. Stays on the queue; JavaScript never reads it. */
export interface DispatchPlan {
  /** [T, K] i32, ascending within a token */
  readonly expertIds: Tensor;
  /** [E + 1] i32: expert e owns rows offsets[e] to offsets[e + 1] */
  readonly offsets: Tensor;
  /** [T * K] i32: the token of each row */
  readonly rows: Tensor;
  /** [T, K] i32: the row of each slot */
  readonly slotRow: Tensor;
  /** Experts per group: sums run within a group first, then over groups, as they do over ranks. */
  readonly groupSize: number;
}

export function planTensors(plan: DispatchPlan): readonly Tensor[] {
  return [plan.expertIds, plan.offsets, plan.rows, plan.slotRow];
}

export declare function gatherSum(rows: Tensor, plan: DispatchPlan, dtype: Dtype): Tensor;
