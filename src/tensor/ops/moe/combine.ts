/**
 * From rows sorted by expert back to tokens: a gather over each token's slots, never a scatter.
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
import type { DispatchPlan } from "./dispatch.ts";

export const combineKernel: Kernel = defineKernel({
  name: "combine",
  operands: {
    x: "in",
    slotRow: "in i32",
    expertIds: "in? i32",
    weights: "in?",
    shared: "in?",
    y: "out",
    count: "in? i32",
  },
  params: ["T", "K", "D", "R", "groupSize"],
  reference({ x, slotRow, expertIds, weights, shared, y, count }, { T, K, D, groupSize }, dtypes) {
    // A group's sum may come from elsewhere, and travels in f32: sums of groups are f32 everywhere.
    const round = dtypes.x === "f64" ? (value: number): number => value : Math.fround;
    const groupOf = (slot: number): number =>
      expertIds === null ? 0 : Math.floor(expertIds[slot]! / groupSize);
    for (let t = 0; t < (count?.[0] ?? T); t++) {
      const own = slotRow.subarray(t * K, (t + 1) * K);
      const slots = own.includes(-1) ? own.indexOf(-1) : K;
      for (let d = 0; d < D; d++) {
        let total = 0;
        for (let k = 0; k < slots; ) {
          const group = groupOf(t * K + k);
          let sum = 0;
          for (; k < slots && groupOf(t * K + k) === group; k++) {
            sum += (weights?.[t * K + k] ?? 1) * x[slotRow[t * K + k]! * D + d]!;
          }
          total = round(total + round(sum));
        }
        y[t * D + d] = total + (shared?.[t * D + d] ?? 0);
      }
    }
  },
  flops: ({ T, K, D }) => 2 * T * K * D,
});

/**
 * y[t] = sum over t's slots of weight * row of x (+ shared[t]), enqueued as it stands: no tape.
 *
 * @param x        [T * K, D] in the plan's order
 * @param weights  [T, K] f32, in the order of the plan's expertIds; null for ones
 * @param shared   [T, D], added unweighted: the shared expert's answer, or on the way back the gradient sent before
 * @param dtype    of y
 * @returns        [T, D]
 * @throws         {ShapeError} if an operand does not fit the plan
 */
export function combine(
  x: Tensor,
  plan: DispatchPlan,
  weights: Tensor | null,
  shared: Tensor | null,
  dtype: Dtype,
): Tensor {
  const { slotRow, expertIds, groupSize } = plan;
  const [T, K, D] = [slotRow.dim(0), slotRow.dim(-1), x.dim(-1)];
  requireShape(x, [T * K, D], "combine: x");
  if (weights !== null) requireShape(weights, [T, K], "combine: weights");
  if (shared !== null) requireShape(shared, [T, D], "combine: shared");
  const y = x.device.empty([T, D], dtype);
  const operands = { x, slotRow, expertIds, weights, shared, y, count: null };
  x.device.run(combineKernel, operands, { T, K, D, R: T * K, groupSize });
  return y;
}

export interface CopySums {
  /** Whether a list is one chain of additions, as the slots of a group are, or each of its rows a group's sum. */
  readonly rowsAre: "slots" | "sums";
  /** One for each place of the lists; null for ones. */
  readonly weights?: Tensor | null;
  /** [T, D], added unweighted; null for none */
  readonly shared: Tensor | null;
  /** [1] i32: how many of the T lists there are; absent for all */
  readonly count?: Tensor;
  /** Of y. */
  readonly dtype: Dtype;
}

/**
 * y[t] = sum over list t of weight * row of x (+ shared[t]), in the order of the list; no tape.
 *
 * @param x      [R, D]
 * @param lists  [T, K] i32: rows of x, -1 behind the last
 * @returns      [T, D]
 */
export function combineCopies(
  x: Tensor,
  lists: Tensor,
  { rowsAre, weights = null, shared, count, dtype }: CopySums,
): Tensor {
  const [T, K, D] = [lists.dim(0), lists.dim(-1), x.dim(-1)];
  if (weights !== null) requireShape(weights, [T * K], "combineCopies: weights");
  if (shared !== null) requireShape(shared, [T, D], "combineCopies: shared");
  const y = x.device.empty([T, D], dtype);
  // Rows of a list differ: as groups of one they are added one after another.
  const expertIds = rowsAre === "sums" ? lists : null;
  const operands = { x, slotRow: lists, expertIds, weights, shared, y, count: count ?? null };
  x.device.run(combineKernel, operands, { T, K, D, R: x.dim(0), groupSize: 1 });
  return y;
}

export const combineKernels: readonly Kernel[] = [combineKernel];
