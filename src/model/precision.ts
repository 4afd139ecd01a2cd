/**
 * Which numbers have which dtype: the whole precision map on one screen.
 *
 *   master      weights as the optimizer sees them, and their gradients
 *   compute     operands of every matrix multiplication but the router's; sums are f32 always
 *   activation  what ops hand to one another, and their gradients; what a wire between ranks carries
 *   residual    the residual stream, to which every layer adds twice
 *   router      logits, affinities and weights of the experts: two that tie in bf16 would make the
 *               choice depend on rounding
 *
 * Norm statistics, softmax, log-sum-exp, losses, RoPE angles and optimizer moments are f32 in both.
 */
import type { Dtype } from "../tensor/index.ts";

export type PrecisionName = "f32" | "bf16" | "f64";

export interface Precision {
  readonly name: PrecisionName;
  readonly master: Dtype;
  readonly compute: Dtype;
  readonly activation: Dtype;
  readonly residual: Dtype;
  readonly router: Dtype;
}

export const precisions: Readonly<Record<PrecisionName, Precision>> = {
  f32: { name: "f32", master: "f32", compute: "f32", activation: "f32", residual: "f32", router: "f32" },
  bf16: { name: "bf16", master: "f32", compute: "bf16", activation: "bf16", residual: "f32", router: "f32" },
  /** Oracles and gradient checks; reference backend only. */
  f64: { name: "f64", master: "f64", compute: "f64", activation: "f64", residual: "f64", router: "f64" },
};
