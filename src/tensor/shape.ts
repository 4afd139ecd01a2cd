import { DtypeError, ShapeError } from "../base/index.ts";
import type { Dtype } from "./dtype.ts";

export type Shape = readonly number[];

export function sizeOf(shape: Shape): number {
  return shape.reduce((product, dim) => product * dim, 1);
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((dim, i) => dim === b[i]);
}

/** Throws unless `tensor` is exactly `wanted`; `where` says which operand of which op, for which parameter. */
export function requireShape(tensor: { readonly shape: Shape }, wanted: Shape, where: string): void {
  if (sameShape(tensor.shape, wanted)) return;
  throw new ShapeError(`${where} is [${tensor.shape.join(", ")}], it must be [${wanted.join(", ")}]`, {
    why: "every dimension of an op's operands follows from the others, and these do not agree",
    fix: "pass a tensor of the wanted shape; if it comes from a checkpoint, load the config.json beside it",
    fields: { where, shape: tensor.shape, wanted },
  });
}

/** Throws unless the tensor's dtype is one of `wanted`. */
export function requireDtype(
  tensor: { readonly dtype: Dtype },
  wanted: readonly Dtype[],
  where: string,
): void {
  if (wanted.includes(tensor.dtype)) return;
  throw new DtypeError(`${where} is ${tensor.dtype}, it must be ${wanted.join(" or ")}`, {
    why: "the op has no arithmetic for this dtype",
    fix: `convert it first: cast(x, "${wanted[0]}")`,
    fields: { where, dtype: tensor.dtype, wanted },
  });
}
