/**
 * DeepSeekMoE: a shared expert that every token visits, and K of E routed ones.
 *
 * No token is dropped: T tokens make exactly T * K rows, sorted by expert on the queue, one grouped
 * multiplication each way, and a weighted sum back.
 *
 * Source: DeepSeek-V3 report, section 2.1.2, eq. (12).
 */
import {
  type DispatchPlan,
  groupedLinear,
  inputOf,
  keptAs,
  mixture,
  type Parameter,
  planDispatch,
  planTensors,
  recomputed,
  scoped,
  sequenceBalanceLoss,
  swiglu,
  type Tensor,
} from "../../tensor/index.ts";
import type { ModelConfig } from "../config.ts";
import type { ParameterFactory } from "../layers/factory.ts";
import type { Pass } from "../layers/pass.ts";
import { Mlp } from "../mlp.ts";
import { Router } from "./router.ts";

/** What a MoE layer did with a pass, for the balance of the next step. */
export interface MoeReport {
  readonly router: Router;
  readonly plan: DispatchPlan;
  /** [1], alpha included; null where no loss is built */
  readonly balanceLoss: Tensor | null;
}

export class Moe {
  readonly config: ModelConfig;
  readonly router: Router;
  readonly sharedExperts: Mlp | null;
  readonly gateUpProj: Parameter; // [E, 2F, D]
  readonly downProj: Parameter; //   [E, D, F]

  constructor(config: ModelConfig, make: ParameterFactory, path: string) {
    const { hiddenSize: D, nRoutedExperts: E, nSharedExperts, moeIntermediateSize: F } = config;
    this.config = config;
    this.router = new Router(config, make, `${path}.gate`);
    this.gateUpProj = make.projection(`${path}.experts.gateUpProj`, [E, 2 * F, D], "experts");
    this.downProj = make.projection(`${path}.experts.downProj`, [E, D, F], "expertsOutput");
    this.sharedExperts =
      nSharedExperts === 0 ? null : new Mlp(make, `${path}.sharedExperts`, D, nSharedExperts * F);
  }

  /** @param x [T, D] normed */
  forward(x: Tensor, pass: Pass): { readonly y: Tensor; readonly report: MoeReport } {
    const { nRoutedExperts: E, nGroup: G, numExpertsPerTok: topK } = this.config;
    const { activation, held, recompute } = pass.precision;

    const { affinity, expertIds, weights } = this.router.forward(x, pass); //          eq. (13)-(16)
    const plan = planDispatch(expertIds, E, E / G);
    const input = inputOf(x, this.gateUpProj); // what is dispatched
    const ask = (): Tensor => {
      const gateUp = keptAs(groupedLinear(input, this.gateUpProj, plan, activation), held.swigluInput);
      return recomputed(swiglu(gateUp), recompute);
    };
    const hidden = scoped(x.device, ask, (tensor) => [tensor]); //                      [T*K, F]
    const shared = this.sharedExperts?.forward(input, pass) ?? null; //                      [T, D]
    const y = mixture(hidden, this.downProj, plan, weights, shared, activation); //      [T, D]  eq. (12)

    const alpha = pass.balanceAlpha;
    const balanceLoss =
      alpha === null ? null : sequenceBalanceLoss(affinity, pass.seqOffsets, { topK, alpha });
    return { y, report: { router: this.router, plan, balanceLoss } };
  }
}

/** What a report reads after its layer has ended. */
export function reportTensors(report: MoeReport | null): readonly (Tensor | null)[] {
  return report === null ? [] : [...planTensors(report.plan), report.balanceLoss];
}
