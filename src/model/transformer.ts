/**
 * DeepSeek-V3: embedding, layers, final norm, and MTP modules behind them.
 *
 * This file and its neighbours are mathematics: they know no rank, no file and no request, free no memory
 * and wait for nothing.
 */
import { embedding, linear, type Parameter, type Tensor } from "../tensor/index.ts";
import type { ModelConfig } from "./config.ts";
import { Layer, type Stream, settle } from "./layer.ts";
import type { ParameterFactory } from "./layers/factory.ts";
import type { Pass } from "./layers/pass.ts";
import type { MoeReport } from "./moe/moe.ts";
import { MtpModule } from "./mtp.ts";

export interface MainOutput {
  /** [T, D]: what the head reads; row i predicts token i + 1 */
  readonly normed: Tensor;
  /** [T, D]: h^0, what the first MTP module reads */
  readonly hidden: Tensor;
  readonly reports: readonly MoeReport[];
}

export class Transformer {
  readonly config: ModelConfig;
  readonly embedTokens: Parameter; // [V, D]
  readonly layers: readonly Layer[];
  readonly norm: Parameter; //        [D]
  readonly lmHead: Parameter; //      [V, D]
  readonly mtp: readonly MtpModule[];

  constructor(config: ModelConfig, make: ParameterFactory) {
    const { vocabSize: V, hiddenSize: D, numHiddenLayers, numNextnPredictLayers } = config;
    this.config = config;
    this.embedTokens = make.table("model.embedTokens.weight", [V, D]);
    this.layers = Array.from({ length: numHiddenLayers }, (_, i) => new Layer(config, make, i));
    this.norm = make.gain("model.norm.weight", D);
    this.lmHead = make.matrix("lmHead.weight", [V, D]);
    this.mtp = Array.from(
      { length: numNextnPredictLayers },
      (_, k) => new MtpModule(config, make, k + 1, this),
    );
  }

  /** @param ids [T] i32 */
  forward(ids: Tensor, pass: Pass): MainOutput {
    const { stream, reports } = throughLayers(this.layers, embed(ids, this.embedTokens, pass), pass);
    return { ...finish(stream, this.norm, this.config, pass), reports };
  }

  /** [T, V] from normed hidden states: for generating; training fuses the head with its loss. */
  logits(normed: Tensor, { precision }: Pass): Tensor {
    return linear(normed, this.lmHead, precision.router);
  }
}

/** The residual stream before the first layer. */
export function embed(ids: Tensor, table: Parameter, { precision }: Pass): Stream {
  const embedded = embedding(ids, table, precision.residual, precision.compute === "bf16");
  return { residual: embedded, update: null };
}

export function throughLayers(
  layers: readonly Layer[],
  from: Stream,
  pass: Pass,
): { readonly stream: Stream; readonly reports: readonly MoeReport[] } {
  let stream = from;
  const reports: MoeReport[] = [];
  for (const layer of layers) {
    const output = layer.forward(stream, pass);
    stream = output.stream;
    if (output.report !== null) reports.push(output.report);
  }
  return { stream, reports };
}

/** The final norm, and what MTP reads. */
export function finish(
  stream: Stream,
  norm: Parameter,
  { rmsNormEps, mtpHidden }: ModelConfig,
  pass: Pass,
): Pick<MainOutput, "normed" | "hidden"> {
  const { sum, y } = settle(stream, norm, rmsNormEps, pass);
  return { normed: y, hidden: mtpHidden === "pre_norm" ? sum : y };
}
