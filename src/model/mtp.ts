/**
 * Multi-token prediction: module k predicts token i + k + 1 from position i, keeping the causal chain.
 *
 *   z_i = M_k [ RMSNorm(Emb(t_{i+k})) ; RMSNorm(h^{k-1}_i) ],   h^k = Layer(z),   logits = Head(RMSNorm(h^k))
 *
 * The embedding comes first in the concatenation: the report prints it second, the released weights have it
 * first, and every engine follows the weights. Embedding and head are the main model's; gradients that reach
 * them from here are kept apart and added once, at the end of a step.
 *
 * Source: DeepSeek-V3 report, section 2.2, eq. (21)-(25). What it adds to the loss is weighted in train/step.ts.
 */
import {
  embedding,
  linear,
  mtpInput,
  type Parameter,
  recomputed,
  scoped,
  type Tensor,
} from "../tensor/index.ts";
import type { ModelConfig } from "./config.ts";
import { Layer, settle } from "./layer.ts";
import type { ParameterFactory } from "./layers/factory.ts";
import type { Pass } from "./layers/pass.ts";
import type { MoeReport } from "./moe/moe.ts";

export interface MtpOutput {
  /** [T, D]: what the shared head reads; row i predicts token i + k + 1 */
  readonly normed: Tensor;
  /** [T, D]: what module k + 1 reads */
  readonly hidden: Tensor;
  readonly report: MoeReport | null;
}

export class MtpModule {
  readonly config: ModelConfig;
  readonly embedTokens: Parameter; //    [V, D], the main model's
  readonly lmHead: Parameter; //         [V, D], the main model's
  readonly enorm: Parameter; //          [D]
  readonly hnorm: Parameter; //          [D]
  readonly ehProj: Parameter; //         [D, 2D]
  readonly layer: Layer;
  readonly sharedHeadNorm: Parameter; // [D]

  /** @param depth  k, from 1 */
  constructor(
    config: ModelConfig,
    make: ParameterFactory,
    depth: number,
    shared: { embedTokens: Parameter; lmHead: Parameter },
  ) {
    const index = config.numHiddenLayers + depth - 1;
    const path = `model.layers.${index}`;
    const { hiddenSize: D } = config;
    this.config = config;
    this.embedTokens = make.share(shared.embedTokens, `${path}.embedTokens.weight`);
    this.lmHead = make.share(shared.lmHead, `${path}.sharedHead.head.weight`);
    this.enorm = make.gain(`${path}.enorm.weight`, D);
    this.hnorm = make.gain(`${path}.hnorm.weight`, D);
    this.ehProj = make.matrix(`${path}.ehProj.weight`, [D, 2 * D]);
    this.layer = new Layer({ ...config, firstKDenseReplace: 0 }, make, index);
    this.sharedHeadNorm = make.gain(`${path}.sharedHead.norm.weight`, D);
  }

  /**
   * @param previous  [T, D], h^{k-1}
   * @param ids       [T] i32, token i + k at position i
   */
  forward(previous: Tensor, ids: Tensor, pass: Pass): MtpOutput {
    const { rmsNormEps: eps, mtpHidden } = this.config;
    const { precision } = pass;
    const join = (): Tensor => {
      const e = embedding(ids, this.embedTokens, precision.residual, precision.compute === "bf16");
      const joined = mtpInput(e, previous, this.enorm, this.hnorm, eps, precision.activation);
      return linear(recomputed(joined), this.ehProj, precision.residual);
    };
    const residual = scoped(ids.device, join, (tensor) => [tensor]); //                          [T, D]  eq. (21)
    const { stream, report } = this.layer.forward({ residual, update: null }, pass); //                  eq. (22)
    const { sum, y } = settle(stream, this.sharedHeadNorm, eps, pass);
    return { normed: y, hidden: mtpHidden === "pre_norm" ? sum : y, report };
  }
}
