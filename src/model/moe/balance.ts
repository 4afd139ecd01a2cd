/** Balancing without an auxiliary loss: the router's bias follows the load. */
import { moveRouterBias, type Param, type Tensor } from "../../tensor/index.ts";
import type { ModelBuffer } from "../layers/factory.ts";

/**
 * Moves the router bias one step towards an even load: busy experts down, idle experts up.
 *
 * Only what past batches did may move it: a bias made from the current sequence would tell a token
 * about its future.
 *
 * Source: DeepSeek-V3 report, section 2.1.2, below eq. (16): b += gamma * sign(mean load - load).
 *
 * @param bias   [E], changed in place
 * @param load   [E] i32, tokens that each expert received in this step, over the whole global batch
 * @param gamma  step size per optimizer step; 0 freezes the bias
 */
export function updateRouterBias(bias: ModelBuffer, load: Tensor, gamma: Param): void {
  moveRouterBias(bias.value, load, gamma);
}

/** How far the busiest expert lies above an even share: max / mean - 1. Source: arXiv 2408.15664. */
export function maxViolation(load: ArrayLike<number>): number {
  const values = Array.from(load);
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return mean === 0 ? 0 : Math.max(...values) / mean - 1;
}
