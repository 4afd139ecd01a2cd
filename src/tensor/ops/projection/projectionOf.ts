import type { Parameter } from "../../parameter.ts";
import type { Tensor } from "../../tensor.ts";
import { fp8Projection } from "./fp8.ts";
import { plainProjection } from "./plain.ts";
import type { Activation, Projection } from "./projection.ts";

/** How `w` is multiplied: by the format in which it is stored. */
export function projectionOf(w: Parameter): Projection {
  return w.fp8 === null ? plainProjection(w) : fp8Projection(w, w.fp8);
}

/** x as `w` reads it, to be handed to several projections that read it alike: in FP8, tiles that are made once. */
export function inputOf(x: Tensor, w: Parameter): Activation {
  return projectionOf(w).input(x);
}
