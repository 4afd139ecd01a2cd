/** Cases of the grouped matrix products: ragged and empty experts, with and without gathering rows. */

import {
  groupedMatmulGradWeightKernel,
  groupedMatmulKernel,
} from "../../../src/tensor/ops/moe/groupedLinear.ts";
import { packReference } from "../../../src/tensor/ops/packWeight.ts";
import { panelElements } from "../../../src/tensor/panels.ts";
import type { CaseOperand, OpCase } from "../opCase.ts";
import { integers, normals } from "../random.ts";
import type { ToleranceClass } from "../tolerance.ts";

type Float = "f32" | "bf16";

interface GroupedShape {
  /** Rows of x; the gather draws from them. */
  readonly Tx: number;
  readonly N: number;
  readonly K: number;
  /** Rows per expert; zero is legal. */
  readonly rowsOf: readonly number[];
}

function random(shape: readonly number[], seed: number, dtype: Float): CaseOperand {
  const size = shape.reduce((product, dim) => product * dim, 1);
  return { shape, dtype, values: normals(size, seed) };
}

function whole(values: ArrayLike<number>): CaseOperand {
  return { shape: [values.length], dtype: "i32", values };
}

/** Where each group's rows begin, and where the last one's end. */
export function offsetsOf(rowsOf: readonly number[]): number[] {
  const offsets = [0];
  for (const rows of rowsOf) offsets.push(offsets.at(-1)! + rows);
  return offsets;
}

function panelsOf(E: number, N: number, K: number, dtype: Float): CaseOperand {
  const panels = new Float64Array(E * panelElements(N, K));
  packReference(normals(E * N * K, 83, K ** -0.5), panels, dtype, E, N, K);
  return { shape: [E, panelElements(N, K)], dtype, values: panels };
}

/** Both products of one shape; the gradient gathers on the other side. bf16 arithmetic rounds its operands alike on both sides: only the sums differ. */
function groupedCases(
  name: string,
  shape: GroupedShape,
  dtypes: { readonly x: Float; readonly panels: Float; readonly y: Float },
  gather: boolean,
): OpCase[] {
  const { Tx, N, K, rowsOf } = shape;
  const offsets = offsetsOf(rowsOf);
  const [R, E] = [offsets.at(-1)!, rowsOf.length];
  const routed = {
    x: random([gather ? Tx : R, K], 81, dtypes.x),
    rows: gather ? whole(integers(R, Tx, 82)) : null,
    offsets: whole(offsets),
  };
  const stored: ToleranceClass = dtypes.y === "bf16" ? "bf16" : "f32Long";
  return [
    {
      name,
      kernel: groupedMatmulKernel,
      operands: {
        ...routed,
        panels: panelsOf(E, N, K, dtypes.panels),
        y: { shape: [R, N], dtype: dtypes.y },
      },
      params: { R, N, K, E },
      tolerance: stored,
    },
    {
      name,
      kernel: groupedMatmulGradWeightKernel,
      operands: {
        dy: random([gather ? R : Tx, N], 84, dtypes.y),
        dyRows: gather ? null : whole(integers(R, Tx, 86)),
        x: routed.x,
        xRows: routed.rows,
        offsets: routed.offsets,
        dw: random([E, N, K], 85, "f32"),
      },
      params: { R, N, K, E, compute: dtypes.panels === "bf16" ? 1 : 0 },
      tolerance: "f32Long",
    },
  ];
}

const f32 = { x: "f32", panels: "f32", y: "f32" } as const;
const bf16 = { x: "bf16", panels: "bf16", y: "bf16" } as const;
const mixed = { x: "f32", panels: "bf16", y: "f32" } as const;
const widened = { x: "bf16", panels: "f32", y: "f32" } as const;

export const groupedLinearCases: readonly OpCase[] = [
  ...groupedCases(
    "ragged experts, two empty",
    { Tx: 9, N: 40, K: 24, rowsOf: [3, 0, 7, 1, 0, 5] },
    f32,
    true,
  ),
  ...groupedCases("rows in order", { Tx: 12, N: 33, K: 17, rowsOf: [2, 13, 4] }, f32, false),
  ...groupedCases("bf16, gathered", { Tx: 64, N: 96, K: 64, rowsOf: [30, 97, 1, 0] }, bf16, true),
  ...groupedCases("bf16, odd width", { Tx: 3, N: 5, K: 9, rowsOf: [1, 2, 3] }, bf16, false),
  ...groupedCases("bf16 weights, f32 rows and sums", { Tx: 8, N: 64, K: 32, rowsOf: [6, 6] }, mixed, true),
  ...groupedCases("f32 weights, bf16 rows", { Tx: 8, N: 32, K: 30, rowsOf: [0, 11] }, widened, true),
  ...groupedCases("no row at all", { Tx: 4, N: 8, K: 8, rowsOf: [0, 0, 0] }, bf16, false),
];
