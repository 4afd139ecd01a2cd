/**
 * Continues a text, one token at a time.
 *
 * Here is what a caller sees: settings, limits, the end of the text. How a token is made is in ./decoder.ts.
 */
import { ContextLengthError, ShapeError } from "../base/index.ts";
import { Decoder, type Runner, type SamplingSettings } from "./decoder.ts";

export interface GenerateOptions extends Partial<SamplingSettings> {
  readonly maxTokens: number;
  /** Ends the text; not given out. */
  readonly stopIds?: readonly number[];
  readonly signal?: AbortSignal;
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
  using decoder = new Decoder(runner, settings, prompt.length + count);
  let next = await decoder.begin(prompt);
  for (let made = 1; ; made++) {
    options.signal?.throwIfAborted();
    if (options.stopIds?.includes(next)) return;
    yield next;
    if (made >= count) return;
    next = await decoder.next();
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
