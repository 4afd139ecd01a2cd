/**
 * Sends every token to K of E experts, all within topkGroup of G groups, so that it crosses to few nodes.
 *
 * The bias steers which experts are chosen and never how much they count: balancing therefore adds no
 * gradient. It is a buffer; `updateRouterBias` in ./balance.ts moves it, once per optimizer step.
 *
 * Source: DeepSeek-V3 report, section 2.1.2, eq. (13)-(16).
 * Dims: T tokens, D hiddenSize, E nRoutedExperts, G nGroup, K numExpertsPerTok.
 */
import { ConfigError } from "../../base/index.ts";
import { linear, type Parameter, route, type Tensor } from "../../tensor/index.ts";
import type { ModelConfig } from "../config.ts";
import type { ModelBuffer, ParameterFactory } from "../layers/factory.ts";
import type { Pass } from "../layers/pass.ts";

/** Which experts each token visits, and how much each answer counts. */
export interface Routing {
  readonly affinity: Tensor; //  [T, E] f32, sigmoid scores, without the bias
  readonly expertIds: Tensor; // [T, K] i32, ascending
  readonly weights: Tensor; //   [T, K] f32, each row sums to routedScalingFactor
}

export class Router {
  readonly config: ModelConfig;
  readonly weight: Parameter; // [E, D]: one centroid per expert
  readonly bias: ModelBuffer; // [E]: the checkpoint's e_score_correction_bias

  constructor(config: ModelConfig, make: ParameterFactory, path: string) {
    if (config.scoringFunc !== "sigmoid" || config.topkMethod !== "noaux_tc") {
      throw new ConfigError(`routing by ${config.scoringFunc} and ${config.topkMethod} cannot be run`, {
        why: "DeepSeek-V3 routes by sigmoid scores with a bias (noaux_tc); the V2 rules give other experts",
        fix: "use a model with scoring_func sigmoid and topk_method noaux_tc; V2 configs serve planning only",
        fields: { scoringFunc: config.scoringFunc, topkMethod: config.topkMethod },
      });
    }
    this.config = config;
    this.weight = make.exactMatrix(`${path}.weight`, [config.nRoutedExperts, config.hiddenSize]);
    this.bias = make.buffer(`${path}.eScoreCorrectionBias`, config.nRoutedExperts);
  }

  /** @param x [T, D] */
  forward(x: Tensor, { precision }: Pass): Routing {
    // In f32: two affinities that tie in bf16 would make the choice depend on rounding.
    const logits = linear(x, this.weight, precision.router); //        [T, E]  eq. (15) is their sigmoid
    return route(logits, this.bias.value, {
      topK: this.config.numExpertsPerTok,
      groups: this.config.nGroup,
      topkGroup: this.config.topkGroup,
      scale: this.config.routedScalingFactor,
      normalise: this.config.normTopkProb,
    });
  }
}
