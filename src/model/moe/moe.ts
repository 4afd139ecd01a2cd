/**
 * DeepSeekMoE: a shared expert that every token visits, and K of E routed ones.
 *
 * No token is dropped: T tokens make exactly T * K rows, sorted by expert on the queue, one grouped
 * multiplication each way, and a weighted sum back.
 *
 * Source: DeepSeek-V3 report, section 2.1.2, eq. (12).
 */
import {
  type Activation,
  type DispatchPlan,
  type ExpertAnswers,
  expertAnswers,
  expertLinear,
  groupedLinear,
  inputOf,
  keptAs,
  mixture,
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
import type { AskedRows, ExpertDispatch } from "./expertDispatch.ts";
import type { ExpertWeights } from "./expertWeights.ts";
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
  readonly gateUpProj: ExpertWeights; // [E, 2F, D]
  readonly downProj: ExpertWeights; //   [E, D, F]

  constructor(config: ModelConfig, make: ParameterFactory, path: string) {
    const { hiddenSize: D, nRoutedExperts: E, nSharedExperts, moeIntermediateSize: F } = config;
    this.config = config;
    this.router = new Router(config, make, `${path}.gate`);
    this.gateUpProj = make.routed(`${path}.experts.gateUpProj`, [E, 2 * F, D], "experts");
    this.downProj = make.routed(`${path}.experts.downProj`, [E, D, F], "expertsOutput");
    this.sharedExperts =
      nSharedExperts === 0 ? null : new Mlp(make, `${path}.sharedExperts`, D, nSharedExperts * F);
  }

  /** @param x [T, D] normed */
  forward(x: Tensor, pass: Pass): { readonly y: Tensor; readonly report: MoeReport } {
    const { nRoutedExperts: E, nGroup: G, numExpertsPerTok: topK } = this.config;
    const { affinity, expertIds, weights } = this.router.forward(x, pass); //          eq. (13)-(16)
    const plan = planDispatch(expertIds, E, E / G);
    const input = inputOf(x, this.gateUpProj.weight); // what is dispatched
    const y = //                                                                         [T, D]  eq. (12)
      pass.dispatch === null
        ? this.#mix(input, plan, weights, pass)
        : this.#mixElsewhere(pass.dispatch, input, plan, weights, pass);

    const alpha = pass.balanceAlpha;
    const balanceLoss =
      alpha === null ? null : sequenceBalanceLoss(affinity, pass.seqOffsets, { topK, alpha });
    return { y, report: { router: this.router, plan, balanceLoss } };
  }

  /** All experts are here. */
  #mix(input: Activation, plan: DispatchPlan, weights: Tensor, pass: Pass): Tensor {
    const { activation, held, recompute } = pass.precision;
    const { weight: gateUpProj } = this.gateUpProj;
    const ask = (): Tensor => {
      const gateUp = keptAs(groupedLinear(input, gateUpProj, plan, activation), held.swigluInput);
      return recomputed(swiglu(gateUp), recompute);
    };
    const hidden = scoped(weights.device, ask, (tensor) => [tensor]); //                   [T*K, F]
    const shared = this.sharedExperts?.forward(input, pass) ?? null; //                      [T, D]
    return mixture(hidden, this.downProj.weight, plan, weights, shared, activation);
  }

  /** Some experts are elsewhere: tokens travel while the shared expert works. */
  #mixElsewhere(
    dispatch: ExpertDispatch,
    input: Activation,
    plan: DispatchPlan,
    weights: Tensor,
    pass: Pass,
  ): Tensor {
    const { activation } = pass.precision;
    const gradient = this.downProj.weight.fp8?.gradient ?? null;
    const mix = (): Tensor => {
      const sent = dispatch.post(input, plan, weights);
      const shared = this.sharedExperts?.forward(input, pass) ?? null;
      const answers = sent.arrived().map((asked, sender) => this.#answer(asked, sender, pass));
      return sent.answered(answers, shared, gradient, activation);
    };
    return scoped(weights.device, mix, (y) => [y]);
  }

  /** What the experts here say to one sender's rows. */
  #answer({ x, rows, gates }: AskedRows, sender: number, { precision }: Pass): ExpertAnswers {
    const { activation, held, recompute } = precision;
    const [gateUpProj, downProj] = [this.gateUpProj.bySender[sender]!, this.downProj.bySender[sender]!];
    const ask = (): Tensor => {
      const gateUp = expertLinear(x, gateUpProj, rows, activation); //                       [R, 2F]
      const kept = keptAs(gateUp, held.swigluInput, rows.count);
      return recomputed(swiglu(kept, activation, rows.count), recompute);
    };
    const hidden = scoped(gates.device, ask, (tensor) => [tensor]); //                        [R, F]
    return expertAnswers(hidden, downProj, rows, gates, activation); //                       [R, D]
  }
}

/** What a report reads after its layer has ended. */
export function reportTensors(report: MoeReport | null): readonly (Tensor | null)[] {
  return report === null ? [] : [...planTensors(report.plan), report.balanceLoss];
}
