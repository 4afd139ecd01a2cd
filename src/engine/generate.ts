/**
 * Continues a text, one token at a time.
 *
 * The prompt runs through in one pass, in MLA's expanded form; after that every token is one pass in the absorbed
 * form over the cached latents. Only the chosen token's id comes back to JavaScript.
 */
import { ContextLengthError, NonFiniteError, ShapeError } from "../base/index.ts";
import type { ModelConfig, Pass, Precision, Transformer } from "../model/index.ts";
import { type QueueDevice, type RopeTable, sampleToken, type Tensor } from "../tensor/index.ts";
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

export interface GenerateOptions extends Partial<SamplingSettings> {
  readonly maxTokens: number;
  /** Ends the text; not given out. */
  readonly stopIds?: readonly number[];
  readonly signal?: AbortSignal;
}

/** A model ready to run. */
export interface Runner {
  readonly device: QueueDevice;
  readonly model: Transformer;
  readonly config: ModelConfig;
  readonly precision: Precision;
  readonly rope: RopeTable;
}

const greedy: SamplingSettings = { temperature: 0, topP: 1, topK: 0, seed: 0 };

/**
 * Token ids that continue `prompt`, as they are chosen.
 *
 * @param prompt  at least one id
 * @throws        {ContextLengthError} if the prompt leaves no room in the model's context, {ShapeError} if an id is unknown
 */
export async function* generateIds(
  runner: Runner,
  prompt: ArrayLike<number>,
  options: GenerateOptions,
): AsyncGenerator<number, void, undefined> {
  const settings: SamplingSettings = { ...greedy, ...options };
  const context = runner.config.maxPositionEmbeddings;
  if (prompt.length === 0 || prompt.length >= context) {
    throw new ContextLengthError(`a prompt of ${prompt.length} tokens cannot be continued`, {
      why: `the model needs one token to start from and has a context of ${context}`,
      fix:
        prompt.length === 0
          ? "give a prompt, or let it begin with the begin-of-sentence token"
          : "shorten the prompt",
      fields: { promptTokens: prompt.length, maxPositionEmbeddings: context },
    });
  }
  requireKnownIds(prompt, runner.config.vocabSize);
  const count = Math.min(options.maxTokens, context - prompt.length);
  if (count <= 0) return;
  options.signal?.throwIfAborted();
  using cache = new KvCache(runner.device, runner.config, runner.precision, prompt.length + count);
  let next = await step(runner, cache, prompt, settings, 0);
  for (let made = 1; ; made++) {
    options.signal?.throwIfAborted();
    if (options.stopIds?.includes(next)) return;
    yield next;
    if (made >= count) return;
    next = await step(runner, cache, [next], settings, made);
  }
}

/** On the queue a wrong id would spoil everything enqueued behind it. */
function requireKnownIds(prompt: ArrayLike<number>, vocabSize: number): void {
  for (let i = 0; i < prompt.length; i++) {
    const id = prompt[i]!;
    if (Number.isInteger(id) && id >= 0 && id < vocabSize) continue;
    throw new ShapeError(`id ${id} at place ${i} of the prompt lies outside the vocabulary of ${vocabSize}`, {
      why: "the model has no embedding for it",
      fix: "encode the prompt with the tokenizer that lies beside the model",
      fields: { id, index: i, vocabSize },
    });
  }
}

/** Runs new tokens through the model and draws the one after them. */
async function step(
  runner: Runner,
  cache: KvCache,
  ids: ArrayLike<number>,
  settings: SamplingSettings,
  counter: number,
): Promise<number> {
  const { device, model } = runner;
  let drawn: Promise<ArrayLike<number>>;
  {
    using _scope = device.scope();
    const { tokens, pass } = makePass(runner, cache, ids);
    const { normed } = model.forward(tokens, pass);
    cache.advance(ids.length);
    const logits = model.logits(normed.rows(ids.length - 1, ids.length), pass);
    drawn = sampleToken(logits, 0, { ...settings, counter }).read();
  }
  const [id] = Array.from(await drawn);
  if (id! >= 0) return id!;
  throw new NonFiniteError(`the logits after ${cache.length} tokens are not finite`, {
    why: "a weight of the model is NaN or infinite, or its values overflow",
    fix: "use an earlier checkpoint of the run; `minke inspect` lists what a checkpoint holds",
    fields: { position: cache.length },
  });
}

function makePass(runner: Runner, cache: KvCache, ids: ArrayLike<number>): { tokens: Tensor; pass: Pass } {
  const { device, precision, rope } = runner;
  const upload = (values: ArrayLike<number>): Tensor => device.from(values, [values.length], "i32");
  const positions = Int32Array.from({ length: ids.length }, (_, i) => cache.length + i);
  const pass: Pass = {
    positions: upload(positions),
    seqOffsets: upload([0, ids.length]),
    rope,
    precision,
    cache,
    balanceAlpha: null,
  };
  return { tokens: upload(ids), pass };
}
