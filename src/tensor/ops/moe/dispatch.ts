/**
 * From chosen experts to rows sorted by expert.
 *
 * Nothing here has a shape that depends on data: T tokens with K slots each make exactly T * K rows.
 * The way back is in ./combine.ts.
 */
import { ShapeError } from "../../../base/index.ts";
import { defineKernel, type Kernel } from "../../kernel.ts";
import { requireDtype, requireShape } from "../../shape.ts";
import type { Tensor } from "../../tensor.ts";

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

export const dispatchPlanKernel: Kernel = defineKernel({
  name: "dispatchPlan",
  operands: { expertIds: "in i32", offsets: "out i32", rows: "out i32", slotRow: "out i32" },
  params: ["T", "K", "E"],
  reference({ expertIds, offsets, rows, slotRow }, { T, K, E }) {
    let row = 0;
    for (let e = 0; e < E; e++) {
      offsets[e] = row;
      for (let slot = 0; slot < T * K; slot++) {
        if (expertIds[slot] !== e) continue;
        rows[row] = Math.floor(slot / K);
        slotRow[slot] = row++;
      }
    }
    offsets[E] = row;
    if (row !== T * K) throw new RangeError(`${T * K - row} expert ids lie outside 0 to ${E - 1}`);
  },
});

export const expertLoadKernel: Kernel = defineKernel({
  name: "expertLoad",
  operands: { offsets: "in i32", load: "inout i32" },
  params: ["E"],
  reference({ offsets, load }, { E }) {
    for (let e = 0; e < E; e++) load[e] = load[e]! + offsets[e + 1]! - offsets[e]!;
  },
});

/**
 * Gives every (token, slot) a row, sorted by expert and by token within an expert.
 *
 * @param expertIds  [T, K] i32, from `route`
 * @param experts    number of experts E
 * @param groupSize  experts per group, E / nGroup: fixes the order in which `combine` sums
 */
export function planDispatch(expertIds: Tensor, experts: number, groupSize: number): DispatchPlan {
  const { device } = expertIds;
  requireDtype(expertIds, ["i32"], "planDispatch: expertIds");
  const [T, K, E] = [expertIds.dim(0), expertIds.dim(-1), experts];
  requireShape(expertIds, [T, K], "planDispatch: expertIds");
  if (groupSize < 1 || !Number.isInteger(E / groupSize)) {
    throw new ShapeError(`planDispatch: ${E} experts do not make whole groups of ${groupSize}`, {
      why: "a token's answers are summed group by group, and every group has the same size",
      fix: "pass nRoutedExperts / nGroup",
      fields: { experts, groupSize },
    });
  }
  const offsets = device.empty([E + 1], "i32");
  const rows = device.empty([T * K], "i32");
  const slotRow = device.empty([T, K], "i32");
  device.run(dispatchPlanKernel, { expertIds, offsets, rows, slotRow }, { T, K, E });
  return { expertIds, offsets, rows, slotRow, groupSize };
}

/**
 * Adds the rows that each expert got to its load.
 *
 * @param load  [E] i32, changed in place; recomputing a forward pass must not come here twice
 */
export function expertLoad(plan: DispatchPlan, load: Tensor): void {
  const E = plan.offsets.size - 1;
  requireDtype(load, ["i32"], "expertLoad: load");
  requireShape(load, [E], "expertLoad: load");
  load.device.run(expertLoadKernel, { offsets: plan.offsets, load }, { E });
}

export const dispatchKernels: readonly Kernel[] = [dispatchPlanKernel, expertLoadKernel];
