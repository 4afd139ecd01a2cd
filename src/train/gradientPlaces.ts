/** The gradients whose squares are summed one by one before they are added: what the norm's bits depend on. */
import type { ParameterFactory } from "../model/index.ts";
import type { Parameter, Tensor } from "../tensor/index.ts";

/**
 * Whole parameters, and of the routed experts each one, so that it does not matter which rank has which.
 *
 * @param grad  of the parameter, of those experts that are held; null where another rank sums its squares
 * @returns     a gradient for each place; null where another rank sums
 */
export function gradientPlaces(
  factory: ParameterFactory,
  parameter: Parameter,
  grad: Tensor | null,
): readonly (Tensor | null)[] {
  const held = factory.expertsOf(parameter);
  if (held === null) return [grad];
  const { first, count } = held;
  return Array.from({ length: factory.config.nRoutedExperts }, (_, e) =>
    grad === null || e < first || e >= first + count ? null : grad.rows(e - first, e - first + 1),
  );
}
