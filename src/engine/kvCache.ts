/**
 * What is remembered of a text while it is continued: per token and layer one latent and one rotary key.
 *
 * latentWidth = kvLoraRank + qkRopeHeadDim numbers a token and layer, in the activation dtype: 70 KB a token for
 * DeepSeek-V3, where ordinary attention with as many heads would keep 4 MB.
 *
 * Source: DeepSeek-V3 report, section 2.1.1 (only the boxed vectors of eq. (1) and (3) are cached).
 */
import { ContextLengthError, invariant } from "../base/index.ts";
import { type LatentCache, latentWidth, type ModelConfig, type Precision } from "../model/index.ts";
import {
  BYTES_PER_ELEMENT,
  type CachedTokens,
  cacheAppend,
  type Device,
  HostScalar,
  type Tensor,
} from "../tensor/index.ts";

export class KvCache implements LatentCache {
  readonly capacity: number;
  readonly #layers: readonly { readonly latent: Tensor; readonly kRope: Tensor }[];
  readonly #length = new HostScalar();

  /** @param capacity  tokens that fit: prompt and answer together */
  constructor(device: Device, config: ModelConfig, { activation }: Precision, capacity: number) {
    if (capacity > config.maxPositionEmbeddings) {
      throw new ContextLengthError(
        `${capacity} tokens do not fit a context of ${config.maxPositionEmbeddings}`,
        {
          why: "the model has never seen positions beyond its context and has no rotary angles for them",
          fix: `shorten the prompt or use --max-tokens so that both stay within ${config.maxPositionEmbeddings}`,
          fields: { capacity, maxPositionEmbeddings: config.maxPositionEmbeddings },
        },
      );
    }
    this.capacity = capacity;
    this.#layers = Array.from({ length: config.numHiddenLayers }, () => ({
      latent: device.temporary([capacity, config.kvLoraRank], activation),
      kRope: device.temporary([capacity, config.qkRopeHeadDim], activation),
    }));
  }

  /** Bytes that a cache of `capacity` tokens takes. */
  static bytes(config: ModelConfig, { activation }: Precision, capacity: number): number {
    return capacity * config.numHiddenLayers * latentWidth(config) * BYTES_PER_ELEMENT[activation];
  }

  get length(): number {
    return this.#length.value;
  }

  append(layer: number, latent: Tensor, kRope: Tensor): CachedTokens {
    const stored = this.#layers[layer]!;
    cacheAppend(latent, kRope, stored.latent, stored.kRope, this.#length);
    return { ...stored, length: this.#length };
  }

  /** Counts the tokens of a pass, once every layer has appended them. */
  advance(tokens: number): void {
    this.#length.value += tokens;
    // A replayed pass appends without asking whether there is room.
    invariant(
      this.#length.value <= this.capacity,
      `a cache of ${this.capacity} tokens holds ${this.#length.value}`,
    );
  }

  [Symbol.dispose](): void {
    for (const { latent, kRope } of this.#layers) {
      latent.dispose();
      kRope.dispose();
    }
  }
}
