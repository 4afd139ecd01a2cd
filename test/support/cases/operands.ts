/** Operands of cases: normal numbers, given ones, integers, room for a result. */

import type { CaseOperand } from "../opCase.ts";
import { normals } from "../random.ts";

export type Float = "f32" | "bf16";

export const DTYPES: readonly Float[] = ["f32", "bf16"];
export const dtypePairs: readonly (readonly [Float, Float])[] = DTYPES.flatMap((a) =>
  DTYPES.map((b) => [a, b] as const),
);

export function random(
  shape: readonly number[],
  dtype: Float,
  seed: number,
  mean: number = 0,
  std: number = 1,
): CaseOperand {
  const size = shape.reduce((product, dim) => product * dim, 1);
  return { shape, dtype, values: normals(size, seed, std, mean) };
}

export function given(shape: readonly number[], values: ArrayLike<number>): CaseOperand {
  return { shape, dtype: "f32", values };
}

export function whole(shape: readonly number[], values: ArrayLike<number>): CaseOperand {
  return { shape, dtype: "i32", values };
}

export function wanted(shape: readonly number[], dtype: Float): CaseOperand {
  return { shape, dtype };
}
