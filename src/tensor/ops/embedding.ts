/**
 * One row of a table per token, and its gradient.
 *
 * The gradient sorts the tokens by id, so that each row of the table is summed by one task in the order of
 * the tokens: adding tokens to rows as they come would depend on how threads meet.
 *
 * T tokens, V rows of the table, D channels.
 */
import type { Dtype } from "../dtype.ts";
import { defineKernel, type Kernel } from "../kernel.ts";
import type { Parameter } from "../parameter.ts";
import { requireDtype, requireShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { rounding } from "./matmul.ts";

export const embeddingKernel: Kernel = defineKernel({
  name: "embedding",
  operands: { ids: "in i32", table: "in", y: "out" },
  params: ["T", "D", "V", "round"],
  reference({ ids, table, y }, { T, D, V, round }) {
    const stored = rounding(round === 1 ? "bf16" : null);
    for (let t = 0; t < T; t++) {
      const row = rowOf(ids, t, V) * D;
      for (let i = 0; i < D; i++) y[t * D + i] = stored(table[row + i]!);
    }
  },
  // Of the table only the tokens' rows are read.
  bytes: ({ T, V }, { ids, table, y }) => ids + (table / V) * T + y,
});

export const embeddingGradKernel: Kernel = defineKernel({
  name: "embeddingGrad",
  operands: { ids: "in i32", dy: "in", dtable: "inout", workspace: "out i32" },
  params: ["T", "D", "V"],
  reference({ ids, dy, dtable }, { T, D, V }) {
    const sums = new Map<number, Float64Array>();
    for (let t = 0; t < T; t++) {
      const row = rowOf(ids, t, V);
      const sum = sums.get(row) ?? new Float64Array(D);
      for (let i = 0; i < D; i++) sum[i] = sum[i]! + dy[t * D + i]!;
      sums.set(row, sum);
    }
    for (const [row, sum] of sums) {
      for (let i = 0; i < D; i++) dtable[row * D + i] = dtable[row * D + i]! + sum[i]!;
    }
  },
  flops: ({ T, D }) => T * D,
  bytes: ({ T, V }, { ids, dy, dtable, workspace }) =>
    ids + dy + 2 * (dtable / V) * Math.min(T, V) + workspace,
});

function rowOf(ids: Int32Array, t: number, V: number): number {
  const id = ids[t]!;
  if (id < 0 || id >= V) throw new RangeError(`ids[${t}] is ${id}, the table has ${V} rows`);
  return id;
}

/**
 * The table's row of each token.
 *
 * @param ids           [T] i32, each below V
 * @param table         [V, D]
 * @param roundToBf16   whether a bf16 copy of the table is meant; keeps an f32 result equal to a bf16 model's
 * @returns             [T, D]
 * @throws              {ShapeError, DtypeError} if ids are not a list of i32; ids out of range fail on the queue
 */
export function embedding(ids: Tensor, table: Parameter, dtype: Dtype, roundToBf16: boolean): Tensor {
  const { device } = ids;
  requireDtype(ids, ["i32"], `${table.path}: ids`);
  requireShape(ids, [ids.size], `${table.path}: ids`);
  requireShape(table, [table.shape[0]!, table.shape[1]!], table.path);
  const [T, V, D] = [ids.size, table.shape[0]!, table.shape[1]!];
  const y = device.empty([T, D], dtype);
  const params = { T, D, V, round: roundToBf16 ? 1 : 0 };
  device.run(embeddingKernel, { ids, table: table.master, y }, params, table.path);
  device.tape?.record({
    op: "embedding",
    inputs: [],
    outputs: [y],
    saved: [ids],
    inputGrad: () => [],
    weightGrad(dy) {
      if (dy === null || table.grad === null) return;
      using workspace = device.temporary([T + V + 1], "i32");
      device.run(embeddingGradKernel, { ids, dy, dtable: table.grad, workspace }, { T, D, V }, table.path);
    },
  });
  return y;
}

export const embeddingKernels: readonly Kernel[] = [embeddingKernel, embeddingGradKernel];
