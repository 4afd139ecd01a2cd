/** y = x @ w^T: every projection of the model but the experts'. How it is multiplied is the weight's business. */
import { ShapeError } from "../../base/index.ts";
import type { Dtype } from "../dtype.ts";
import type { Parameter } from "../parameter.ts";
import type { Tensor } from "../tensor.ts";
import { type Activation, sourceOf, tensorsOf } from "./projection/projection.ts";
import { projectionOf } from "./projection/projectionOf.ts";

/**
 * y = x @ w^T.
 *
 * @param x      [T, K]
 * @param w      [N, K]
 * @param dtype  of y; the gradient that flows back to x takes x's dtype
 * @returns      [T, N]
 * @throws       {ShapeError} if K differs
 */
export function linear(x: Activation, w: Parameter, dtype: Dtype): Tensor {
  const source = sourceOf(x);
  const { device } = source;
  const [N, K] = [w.shape[0]!, w.shape[1]!];
  if (source.dim(-1) !== K) {
    throw new ShapeError(`${w.path}: x is [${source.shape.join(", ")}], the weight is [${N}, ${K}]`, {
      why: "y = x @ w^T needs x's last dimension to equal the weight's",
      fix: "check which hidden size feeds this projection",
      fields: { path: w.path, x: source.shape, w: w.shape },
    });
  }
  const projection = projectionOf(w);
  const y = device.empty([source.size / K, N], dtype);
  const input = projection.input(x);
  const make = (): void => projection.forward(input, null, y);
  make();
  const back = (dy: Tensor | null, before: Tensor | null): Tensor | null => {
    if (dy === null || w.panelsT === null) return null;
    const dx = device.empty(source.shape, source.dtype);
    projection.backInput(dy, null, dx, before);
    return dx;
  };
  device.tape?.record({
    op: "linear",
    inputs: [source],
    outputs: [y],
    saved: tensorsOf(input),
    remakes: [{ outputs: [y], reads: tensorsOf(input), run: make }],
    inputGrad: (dy) => [back(dy, null)],
    inputGradOnto: (before, dy) => [back(dy, before)],
    weightGrad(dy) {
      if (dy !== null && w.grad !== null) projection.backWeight(dy, input, null);
    },
  });
  return y;
}
