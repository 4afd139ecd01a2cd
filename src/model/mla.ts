/**
 * Multi-head Latent Attention: keys and values of all heads are unfolded from one small latent per token.
 *
 * Both forms stand here side by side. *Expanded* (training, prompts): unfold keys and values, attend as any
 * multi-head attention does. *Absorbed* (decoding): fold the unfolding into the query and read the cached
 * latents as they lie, so that a token costs kvLoraRank + qkRopeHeadDim numbers of cache in each layer.
 *
 * Source: DeepSeek-V3 report, section 2.1.1, eq. (1)-(11).
 * Dims: T tokens, D hiddenSize, H heads, N qkNopeHeadDim, R qkRopeHeadDim, C kvLoraRank, V vHeadDim.
 */
import {
  type Activation,
  absorbedAttention,
  attention,
  inputOf,
  keptAs,
  latentKv,
  linear,
  type Parameter,
  recomputed,
  rmsNorm,
  rope,
  type Tensor,
} from "../tensor/index.ts";
import { type ModelConfig, qkHeadDim } from "./config.ts";
import type { ParameterFactory } from "./layers/factory.ts";
import type { Pass } from "./layers/pass.ts";
import { softmaxScale } from "./rope.ts";

export class Mla {
  readonly config: ModelConfig;
  readonly layer: number;
  readonly query: Query;
  readonly kvAProj: Parameter; //     [C + R, D]: latent first, then the one rotary key of all heads
  readonly kvALayernorm: Parameter; // [C]
  readonly kvBProj: Parameter; //     [H * (N + V), C]: per head N of the key, then V of the value
  readonly oProj: Parameter; //       [D, H * V]

  constructor(config: ModelConfig, make: ParameterFactory, path: string, layer: number) {
    const { hiddenSize: D, numAttentionHeads: H, kvLoraRank: C, qkRopeHeadDim: R, vHeadDim: V } = config;
    this.config = config;
    this.layer = layer;
    this.query = makeQuery(config, make, path);
    this.kvAProj = make.projection(`${path}.kvAProjWithMqa.weight`, [C + R, D], "attention");
    this.kvALayernorm = make.gain(`${path}.kvALayernorm.weight`, C);
    this.kvBProj = make.projection(
      `${path}.kvBProj.weight`,
      [H * (config.qkNopeHeadDim + V), C],
      "attention",
    );
    this.oProj = make.projection(`${path}.oProj.weight`, [D, H * V], "attentionOutput");
  }

  /** @param x [T, D] normed; returns [T, D], to be added to the residual stream */
  forward(x: Tensor, pass: Pass): Tensor {
    const {
      numAttentionHeads: H,
      qkNopeHeadDim: N,
      qkRopeHeadDim: R,
      kvLoraRank: C,
      vHeadDim: V,
    } = this.config;
    const { activation, held } = pass.precision;
    const scale = softmaxScale(this.config);

    const input = inputOf(x, this.kvAProj);
    const qPlain = this.query.forward(input, pass); //                               [T, H*(N+R)]     (6)-(7)
    const layout = { heads: H, stride: N + R, offset: N, width: R };
    const q = recomputed(rope(qPlain, pass.rope, pass.positions, layout)); //                         (8)

    const kvA = linear(input, this.kvAProj, activation); //                          [T, C+R]         (1)
    const fresh = latentKv(
      kvA,
      this.kvALayernorm,
      this.config.latentNormEps,
      pass.rope,
      pass.positions,
      C,
      activation,
    );
    for (const tensor of [fresh.latent, fresh.kRope]) recomputed(tensor);
    const cached = pass.cache?.append(this.layer, fresh.latent, fresh.kRope); // [S, C] [S, R]    (3)

    if (cached !== undefined && pass.cache !== null && pass.cache.length > 0) {
      const round = pass.precision.compute === "bf16";
      const dims = { heads: H, nope: N, rope: R, value: V, latent: C };
      return linear(
        absorbedAttention(q, this.kvBProj.master, cached, dims, scale, round, activation),
        this.oProj,
        activation,
      );
    }
    const kv = recomputed(linear(fresh.latent, this.kvBProj, activation)); //    [T, H*(N+V)]     (2), (5)
    const dims = { heads: H, nope: N, rope: R, value: V };
    const o = attention(q, kv, fresh.kRope, pass.seqOffsets, dims, scale, activation); // [T, H*V] (4), (9)-(10)
    return linear(keptAs(o, held.attentionOutput), this.oProj, activation); //                                 [T, D]           (11)
  }
}

/** How a token asks: through a latent of its own, or, in the smaller relatives, directly. */
interface Query {
  forward(x: Activation, pass: Pass): Tensor;
}

function makeQuery(config: ModelConfig, make: ParameterFactory, path: string): Query {
  const { qLoraRank, hiddenSize: D, latentNormEps } = config;
  const width = config.numAttentionHeads * qkHeadDim(config);
  if (qLoraRank === null) {
    const qProj = make.projection(`${path}.qProj.weight`, [width, D], "attention");
    return { forward: (x, pass) => linear(x, qProj, pass.precision.activation) };
  }
  const qAProj = make.projection(`${path}.qAProj.weight`, [qLoraRank, D], "attention");
  const qALayernorm = make.gain(`${path}.qALayernorm.weight`, qLoraRank);
  const qBProj = make.projection(`${path}.qBProj.weight`, [width, qLoraRank], "attention");
  return {
    forward(x, { precision: { activation } }) {
      const latent = linear(x, qAProj, activation); //                           [T, qLoraRank]
      const normed = recomputed(rmsNorm(latent, qALayernorm, latentNormEps, activation));
      return linear(normed, qBProj, activation);
    },
  };
}
