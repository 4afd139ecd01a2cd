/**
 * One matrix multiplication per expert, over the rows that were sent to it.
 *
 * Rows arrive sorted by expert; `offsets` bounds each expert's part and lives on the queue, so no
 * shape depends on what the router chose. Gathering a token's row is part of the multiplication.
 */
import { invariant, ShapeError } from "../../../base/index.ts";
import type { Dtype } from "../../dtype.ts";
import { defineKernel, type Kernel } from "../../kernel.ts";
import { panelElements, panelIndex } from "../../panels.ts";
import type { Parameter } from "../../parameter.ts";
import { sameShape } from "../../shape.ts";
import type { Tensor } from "../../tensor.ts";
import { computeCode, gradWeightReference, rounding } from "../linear.ts";
import { combine } from "./combine.ts";
import { type DispatchPlan, planTensors } from "./dispatch.ts";

export const groupedMatmulKernel: Kernel = defineKernel({
  name: "groupedMatmul",
  operands: { x: "in", rows: "in? i32", offsets: "in i32", panels: "in", y: "out" },
  params: ["R", "N", "K", "E"],
  reference({ x, rows, offsets, panels, y }, { N, K, E }, dtypes) {
    const round = rounding(dtypes.panels);
    const block = panelElements(N, K);
    for (let e = 0; e < E; e++) {
      for (let r = offsets[e]!; r < offsets[e + 1]!; r++) {
        const source = (rows === null ? r : rows[r]!) * K;
        for (let n = 0; n < N; n++) {
          let sum = 0;
          for (let k = 0; k < K; k++) {
            sum += round(x[source + k]!) * panels[e * block + panelIndex(n, k, K, dtypes.panels)]!;
          }
          y[r * N + n] = sum;
        }
      }
    }
  },
  flops: ({ R, N, K }) => 2 * R * N * K,
});

export const groupedMatmulGradWeightKernel: Kernel = defineKernel({
  name: "groupedMatmulGradWeight",
  operands: { dy: "in", dyRows: "in? i32", x: "in", xRows: "in? i32", offsets: "in i32", dw: "inout" },
  params: ["R", "N", "K", "E", "compute"],
  reference({ dy, dyRows, x, xRows, offsets, dw }, { N, K, E, compute }) {
    const from =
      (rows: Int32Array | null) =>
      (r: number): number =>
        rows?.[r] ?? r;
    for (let e = 0; e < E; e++) {
      const tokens = { from: offsets[e]!, to: offsets[e + 1]!, dyRow: from(dyRows), xRow: from(xRows) };
      gradWeightReference(dy, x, tokens, dw.subarray(e * N * K, (e + 1) * N * K), N, K, compute);
    }
  },
  flops: ({ R, N, K }) => 2 * R * N * K,
});

/**
 * y[r] = x[token of r] @ w[expert of r]^T, one row per (token, slot). The way back to tokens is in ./mixture.ts.
 *
 * @param x       [T, K]
 * @param w       [E, N, K]
 * @returns       [R, N] with R = T * numExpertsPerTok
 * @throws        {ShapeError} if x, the plan and the weight differ in rows, K or E
 */
export function groupedLinear(x: Tensor, w: Parameter, plan: DispatchPlan, dtype: Dtype): Tensor {
  const [E, N, K] = [w.shape[0]!, w.shape[1]!, w.shape[2]!];
  const { device } = x;
  const { panels } = w;
  const { rows, offsets } = plan;
  const R = rows.size;
  invariant(panels !== null, `${w.path} has no packed copy`);
  requireExperts(x, plan.slotRow.dim(0), w, plan);
  const y = device.empty([R, N], dtype);
  const make = (): void =>
    device.run(groupedMatmulKernel, { x, rows, offsets, panels, y }, { R, N, K, E }, w.path);
  make();
  device.tape?.record({
    op: "groupedLinear",
    inputs: [x],
    outputs: [y],
    saved: [x, ...planTensors(plan)],
    remakes: [{ outputs: [y], reads: [x, ...planTensors(plan)], run: make }],
    inputGrad(dy) {
      if (dy === null || w.panelsT === null) return [null];
      const dRows = device.empty([R, K], x.dtype);
      const back = { x: dy, rows: null, offsets, panels: w.panelsT, y: dRows };
      device.run(groupedMatmulKernel, back, { R, N: K, K: N, E }, w.path);
      return [combine(dRows, plan, null, null, x.dtype)];
    },
    weightGrad(dy) {
      if (dy === null || w.grad === null) return;
      const sum = { dy, dyRows: null, x, xRows: rows, offsets, dw: w.grad };
      device.run(groupedMatmulGradWeightKernel, sum, { R, N, K, E, compute: computeCode(w) }, w.path);
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

export const groupedLinearKernels: readonly Kernel[] = [groupedMatmulKernel, groupedMatmulGradWeightKernel];
