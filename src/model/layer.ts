/**
 * One Transformer layer: attention and feed-forward, each behind a norm, each added to the residual stream.
 *
 *   h <- h + MLA(RMSNorm(h));   h <- h + FFN(RMSNorm(h))
 *
 * The second addition is left pending and done together with the next layer's first norm, in one pass over memory.
 */
import { addRmsNorm, type Parameter, rmsNorm, type Tensor } from "../tensor/index.ts";
import { isMoeLayer, type ModelConfig } from "./config.ts";
import type { ParameterFactory } from "./layers/factory.ts";
import type { Pass } from "./layers/pass.ts";
import { Mla } from "./mla.ts";
import { Mlp } from "./mlp.ts";
import { Moe, type MoeReport } from "./moe/moe.ts";

/** The residual stream, with what the last layer still has to add to it. */
export interface Stream {
  readonly residual: Tensor; //     [T, D]
  readonly update: Tensor | null; // [T, D]
}

/** Adds what is pending and norms the sum: { sum: h, y: RMSNorm(h) }. */
export function settle(
  { residual, update }: Stream,
  gain: Parameter,
  eps: number,
  { precision }: Pass,
): { readonly sum: Tensor; readonly y: Tensor } {
  if (update === null) return { sum: residual, y: rmsNorm(residual, gain, eps, precision.activation) };
  return addRmsNorm(residual, update, gain, eps, precision.residual, precision.activation);
}

export class Layer {
  readonly config: ModelConfig;
  readonly inputLayernorm: Parameter;
  readonly selfAttn: Mla;
  readonly postAttentionLayernorm: Parameter;
  readonly mlp: Mlp | Moe;

  /** @param index  as in the checkpoint; MTP modules are numbered behind the main layers */
  constructor(config: ModelConfig, make: ParameterFactory, index: number) {
    const path = `model.layers.${index}`;
    const { hiddenSize: D, intermediateSize } = config;
    this.config = config;
    this.inputLayernorm = make.gain(`${path}.inputLayernorm.weight`, D);
    this.selfAttn = new Mla(config, make, `${path}.selfAttn`, index);
    this.postAttentionLayernorm = make.gain(`${path}.postAttentionLayernorm.weight`, D);
    this.mlp = isMoeLayer(config, index)
      ? new Moe(config, make, `${path}.mlp`)
      : new Mlp(make, `${path}.mlp`, D, intermediateSize);
  }

  forward(stream: Stream, pass: Pass): { readonly stream: Stream; readonly report: MoeReport | null } {
    const { rmsNormEps: eps } = this.config;
    const before = settle(stream, this.inputLayernorm, eps, pass);
    const attended = this.selfAttn.forward(before.y, pass);
    const between = settle(
      { residual: before.sum, update: attended },
      this.postAttentionLayernorm,
      eps,
      pass,
    );
    if (this.mlp instanceof Mlp) {
      return { stream: { residual: between.sum, update: this.mlp.forward(between.y, pass) }, report: null };
    }
    const { y, report } = this.mlp.forward(between.y, pass);
    return { stream: { residual: between.sum, update: y }, report };
  }
}
