/**
 * Makes one text, token by token, on a cache of its own.
 *
 * The prompt runs through in one pass, in MLA's expanded form; after that every token is one pass in the absorbed
 * form over the cached latents. That pass is recorded: the drawn token stays on the queue as the next pass's input,
 * and only its id comes back to JavaScript.
 */
import { NonFiniteError } from "../base/index.ts";
import type { ExpertDispatch, ModelConfig, Pass, Precision, Transformer } from "../model/index.ts";
import {
  copyInto,
  HostScalar,
  type QueueDevice,
  Recording,
  type RopeTable,
  sampleToken,
  type Tensor,
} from "../tensor/index.ts";
import { KvCache } from "./kvCache.ts";

export interface SamplingSettings {
  /** 0 takes the most likely token. */
  readonly temperature: number;
  /** Smallest set of tokens whose probabilities add up to this; 1 takes all. */
  readonly topP: number;
  /** The k most likely tokens; 0 takes all. */
  readonly topK: number;
  readonly seed: number;
}

/** A model ready to run. */
export interface Runner {
  readonly device: QueueDevice;
  readonly model: Transformer;
  readonly config: ModelConfig;
  readonly precision: Precision;
  readonly rope: RopeTable;
  /** How tokens reach experts that are held elsewhere; absent or null where all are here. */
  readonly dispatch?: ExpertDispatch | null;
}

export class Decoder {
  readonly #runner: Runner;
  readonly #settings: SamplingSettings;
  readonly #cache: KvCache;
  /** [1]: the token drawn last. */
  readonly #token: Tensor;
  /** [1]: its position. */
  readonly #position: Tensor;
  /** [2] */
  readonly #bounds: Tensor;
  /** Number of the draw. */
  readonly #counter = new HostScalar();
  readonly #pass: Recording;

  /** @param capacity  tokens of prompt and answer together */
  constructor(runner: Runner, settings: SamplingSettings, capacity: number) {
    const { device, config, precision } = runner;
    this.#runner = runner;
    this.#settings = settings;
    this.#cache = new KvCache(device, config, precision, capacity);
    this.#token = device.temporary([1], "i32");
    this.#position = device.temporary([1], "i32");
    this.#bounds = device.temporary([2], "i32");
    this.#bounds.write([0, 1]);
    this.#pass = new Recording(device, () => this.#enqueue(this.#token, this.#position, this.#bounds));
  }

  /** Runs the prompt through the model; resolves with the token after it. */
  begin(prompt: ArrayLike<number>): Promise<number> {
    const { device } = this.#runner;
    using _scope = device.scope();
    const upload = (values: ArrayLike<number>): Tensor => device.from(values, [values.length], "i32");
    const positions = upload(Int32Array.from({ length: prompt.length }, (_, i) => i));
    this.#enqueue(upload(prompt), positions, upload([0, prompt.length]));
    return this.#drawn(prompt.length);
  }

  /** Runs the token drawn last through the model; resolves with the one after it. */
  next(): Promise<number> {
    this.#position.write([this.#cache.length]);
    this.#counter.value++;
    this.#pass.run();
    return this.#drawn(1);
  }

  [Symbol.dispose](): void {
    this.#cache[Symbol.dispose]();
    for (const tensor of [this.#token, this.#position, this.#bounds]) tensor.dispose();
  }

  /** New tokens through the model, and a draw from the distribution behind the last. */
  #enqueue(tokens: Tensor, positions: Tensor, seqOffsets: Tensor): void {
    const { model, precision, rope, dispatch = null } = this.#runner;
    const pass: Pass = {
      positions,
      seqOffsets,
      rope,
      precision,
      cache: this.#cache,
      balanceAlpha: null,
      dispatch,
    };
    const { normed } = model.forward(tokens, pass);
    const logits = model.logits(normed.rows(tokens.size - 1, tokens.size), pass);
    copyInto(sampleToken(logits, 0, { ...this.#settings, counter: this.#counter }), this.#token);
  }

  async #drawn(tokens: number): Promise<number> {
    this.#cache.advance(tokens);
    const [id] = Array.from(await this.#token.read());
    if (id! >= 0) return id!;
    throw new NonFiniteError(`the logits after ${this.#cache.length} tokens are not finite`, {
      why: "a weight of the model is NaN or infinite, or its values overflow",
      fix: "use an earlier checkpoint of the run; `minke inspect` lists what a checkpoint holds",
      fields: { position: this.#cache.length },
    });
  }
}
