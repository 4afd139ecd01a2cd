/**
 * One Transformer layer: attention and feed-forward, each behind a norm, each added to the residual stream.
 *
 *   h <- h + MLA(RMSNorm(h));   h <- h + FFN(RMSNorm(h))
 *
 * The second addition is left pending and done together with the next layer's first norm, in one pass over memory.
 */
import { addRmsNorm, type Parameter, recomputed, rmsNorm, scoped, type Tensor } from "../tensor/index.ts";
import { isMoeLayer, type ModelConfig } from "./config.ts";
import type { ParameterFactory } from "./layers/factory.ts";
import type { Pass } from "./layers/pass.ts";
import { Mla } from "./mla.ts";
import { Mlp } from "./mlp.ts";
import { Moe, type MoeReport, reportTensors } from "./moe/moe.ts";

/** The residual stream, with what the last layer still has to add to it. */
export interface Stream {
  readonly residual: Tensor; //     [T, D]
  readonly update: Tensor | null; // [T, D]
}

/** Adds what is pending and norms the sum: { sum: h, y: RMSNorm(h) }. Nobody reads the stream as it was after this. */
export function settle(
  { residual, update }: Stream,
  gain: Parameter,
  eps: number,
  { precision }: Pass,
  sumIs: "kept" | "recomputed" = "kept",
): { readonly sum: Tensor; readonly y: Tensor } {
  if (update === null) {
    const y = rmsNorm(residual, gain, eps, precision.activation);
    return { sum: residual, y: recomputed(y, precision.recompute) };
  }
  const { sum, y } = addRmsNorm(residual, update, gain, eps, precision.residual, precision.activation);
  if (sumIs === "recomputed") recomputed(sum, precision.recompute);
  for (const tensor of [residual, update]) tensor.device.giveUp(tensor);
  return { sum, y: recomputed(y, precision.recompute) };
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
    const { device } = stream.residual;
    const attended = scoped(device, () => this.#attend(stream, pass), streamTensors);
    return scoped(
      device,
      () => this.#feed(attended, pass),
      (output) => [...streamTensors(output.stream), ...reportTensors(output.report)],
    );
  }

  #attend(stream: Stream, pass: Pass): Stream {
    const { sum, y } = settle(stream, this.inputLayernorm, this.config.rmsNormEps, pass);
    return { residual: sum, update: this.selfAttn.forward(y, pass) };
  }

  #feed(stream: Stream, pass: Pass): { readonly stream: Stream; readonly report: MoeReport | null } {
    // From the layer's first sum, which is kept, and what attention added: half as wide as this one.
    const { sum, y } = settle(
      stream,
      this.postAttentionLayernorm,
      this.config.rmsNormEps,
      pass,
      "recomputed",
    );
    if (this.mlp instanceof Mlp) {
      return { stream: { residual: sum, update: this.mlp.forward(y, pass) }, report: null };
    }
    const output = this.mlp.forward(y, pass);
    return { stream: { residual: sum, update: output.y }, report: output.report };
  }
}

function streamTensors({ residual, update }: Stream): readonly (Tensor | null)[] {
  return [residual, update];
}
