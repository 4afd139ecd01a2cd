/** The gradients whose squares are summed one by one before they are added: what the norm's bits depend on. */
import type { ParameterFactory } from "../model/index.ts";
import type { Parameter, Tensor } from "../tensor/index.ts";

/**
 * Whole parameters, and of the routed experts each one, so that it does not matter which rank has which.
 *
 * @param grad   of the parameter, of those experts that are held; null where another rank sums its squares
 * @param first  of these experts
 * @returns      a gradient for each place; null where another rank sums
 */
export function gradientPlaces(
  factory: ParameterFactory,
  parameter: Parameter,
  grad: Tensor | null,
  first: number = factory.expertsOf(parameter)?.first ?? 0,
): readonly (Tensor | null)[] {
  if (factory.expertsOf(parameter) === null) return [grad];
  const end = first + (grad?.dim(0) ?? 0);
  return Array.from({ length: factory.config.nRoutedExperts }, (_, e) =>
    grad === null || e < first || e >= end ? null : grad.rows(e - first, e - first + 1),
  );
}
