/**
 * A run of layers of the model, for a pipeline: the first stage has the embedding, the last the head and MTP.
 *
 * What crosses from one stage to the next is the residual stream with the last layer's update still pending, so that
 * the addition is done where the whole model does it, with the same rounding.
 */
import type { Parameter, Tensor } from "../tensor/index.ts";
import type { ModelConfig } from "./config.ts";
import { Layer, type Stream } from "./layer.ts";
import type { ParameterFactory } from "./layers/factory.ts";
import type { Pass } from "./layers/pass.ts";
import type { MoeReport } from "./moe/moe.ts";
import { MtpModule } from "./mtp.ts";
import { embed, finish, type MainOutput, throughLayers } from "./transformer.ts";

/** Layers `from` to `to` - 1 of the main model. */
export interface LayerRange {
  readonly from: number;
  readonly to: number;
}

/** What stands behind the last layer. */
export interface Head {
  readonly norm: Parameter; //   [D]
  readonly lmHead: Parameter; // [V, D]
  readonly mtp: readonly MtpModule[];
}

export class Stage {
  readonly config: ModelConfig;
  /** [V, D], of the first stage */
  readonly embedTokens: Parameter | null;
  readonly layers: readonly Layer[];
  /** Of the last stage. */
  readonly head: Head | null;

  /**
   * @param embedTokens  the embedding, if this process holds the first stage too: MTP shares it. Another process's
   *   embedding cannot be shared, so without it the last stage has no MTP modules
   */
  constructor(
    config: ModelConfig,
    make: ParameterFactory,
    { from, to }: LayerRange,
    embedTokens: Parameter | null = null,
  ) {
    const { vocabSize: V, hiddenSize: D, numHiddenLayers } = config;
    this.config = config;
    this.embedTokens = from === 0 ? make.table("model.embedTokens.weight", [V, D]) : null;
    this.layers = Array.from({ length: to - from }, (_, i) => new Layer(config, make, from + i));
    this.head = to === numHiddenLayers ? makeHead(config, make, this.embedTokens ?? embedTokens) : null;
  }

  /** @param ids [T] i32 */
  embed(ids: Tensor, pass: Pass): Stream | null {
    return this.embedTokens === null ? null : embed(ids, this.embedTokens, pass);
  }

  forward(stream: Stream, pass: Pass): { readonly stream: Stream; readonly reports: readonly MoeReport[] } {
    return throughLayers(this.layers, stream, pass);
  }

  /** What the head reads, from the last stage's stream. */
  finish(stream: Stream, head: Head, pass: Pass): Pick<MainOutput, "normed" | "hidden"> {
    return finish(stream, head.norm, this.config, pass);
  }
}

function makeHead(config: ModelConfig, make: ParameterFactory, embedTokens: Parameter | null): Head {
  const { vocabSize: V, hiddenSize: D, numNextnPredictLayers } = config;
  const norm = make.gain("model.norm.weight", D);
  const lmHead = make.matrix("lmHead.weight", [V, D]);
  const depths = embedTokens === null ? 0 : numNextnPredictLayers;
  const mtp = Array.from(
    { length: depths },
    (_, k) => new MtpModule(config, make, k + 1, { embedTokens: embedTokens!, lmHead }),
  );
  return { norm, lmHead, mtp };
}
