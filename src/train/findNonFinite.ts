/** Names the tensor that is not finite: a weight first, for a broken weight breaks every gradient. */
import type { ParameterFactory } from "../model/index.ts";
import { reduceSum, type Tensor } from "../tensor/index.ts";

const GRADIENT = " (gradient)";

/** Of what several ranks have found, what explains the most: a broken weight of one spoils gradients of all. */
export function worstOf(found: readonly (string | null)[]): string | null {
  return (
    found.find((path) => path !== null && !path.endsWith(GRADIENT)) ??
    found.find((path) => path !== null) ??
    null
  );
}

/** @returns the path of the first weight, router bias or gradient that holds a NaN or infinity; null if none does */
export async function findNonFinite(factories: readonly ParameterFactory[]): Promise<string | null> {
  const parameters = factories.flatMap((factory) => factory.parameters);
  const weights = parameters.map(({ path, master }) => ({ path, tensor: master }));
  const biases = factories.flatMap(({ buffers }) =>
    buffers.map(({ path, value }) => ({ path, tensor: value })),
  );
  const grads = parameters.flatMap(({ path, grad }) =>
    grad === null ? [] : [{ path: `${path}${GRADIENT}`, tensor: grad }],
  );
  for (const { path, tensor } of [...weights, ...biases, ...grads])
    if (!(await isAllFinite(tensor))) return path;
  return null;
}

async function isAllFinite(tensor: Tensor): Promise<boolean> {
  // One NaN or infinity makes the whole sum so; finite weights are far too small to overflow it.
  using sum = reduceSum(tensor.reshape(-1), 1);
  const [value] = Array.from(await sum.read());
  return Number.isFinite(value);
}
