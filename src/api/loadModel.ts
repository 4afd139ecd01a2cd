/** Loads a trained model and lets it write. */
import { join } from "node:path";
import { type RunWarning, TokenizerError, UsageError } from "../base/index.ts";
import { findCheckpoint, readModel, readModelConfig, requireWhole } from "../checkpoint/index.ts";
import { generateIds, type Runner } from "../engine/index.ts";
import {
  type ModelConfig,
  makeRopeTable,
  ParameterFactory,
  precisions,
  Transformer,
} from "../model/index.ts";
import type { Tokenizer } from "../text/index.ts";
import { openDevice } from "./openDevice.ts";
import { loadTokenizer } from "./prepareRun.ts";

export interface LoadOptions {
  readonly threads?: number;
  /** By default that of the weights on disk. */
  readonly precision?: "f32" | "bf16" | "fp8";
  readonly backend?: "native" | "reference";
}

export interface WriteOptions {
  readonly maxTokens?: number;
  readonly temperature?: number;
  readonly topP?: number;
  readonly topK?: number;
  readonly seed?: number;
  /** Texts at which the answer ends; not given out. */
  readonly stop?: readonly string[];
  readonly signal?: AbortSignal;
}

export interface LoadedModel {
  readonly path: string;
  readonly config: ModelConfig;
  readonly tokenizer: Tokenizer;
  /** What the user should hear: that there are no native kernels, and what to install. */
  readonly warning: RunWarning | null;
  /** Pieces of text that continue the prompt; never half a character. */
  generate(prompt: string, options?: WriteOptions): AsyncGenerator<string, void, undefined>;
  dispose(): Promise<void>;
}

/**
 * @param path  a run folder, one of its checkpoints, or a folder in Hugging Face layout
 * @throws      {CheckpointError} if there is none, or it is damaged; {TokenizerError} if its tokenizer does not fit
 */
export async function loadModel(path: string, options: LoadOptions = {}): Promise<LoadedModel> {
  const folder = await findCheckpoint(path);
  await requireWhole(folder);
  const config = await readModelConfig(folder);
  const tokenizer = await loadTokenizer(folder);
  requireFit(tokenizer, config, folder);
  const { device, warning } = openDevice(options);
  const precision = precisions[options.precision ?? (config.torchDtype === "float32" ? "f32" : "bf16")];
  const factory = new ParameterFactory(device, config, { precision, isTrained: false });
  const model = new Transformer(config, factory);
  try {
    await readModel(folder, factory);
  } catch (error) {
    await device.dispose();
    throw error;
  }
  const rope = makeRopeTable(device, config, config.maxPositionEmbeddings, "f32");
  const runner: Runner = { device, model, config, precision, rope };
  return {
    path: folder,
    config,
    tokenizer,
    warning,
    generate: (prompt, settings = {}) => write(runner, tokenizer, prompt, settings),
    dispose: () => device.dispose(),
  };
}

function requireFit(tokenizer: Tokenizer, config: ModelConfig, folder: string): void {
  if (tokenizer.vocabSize <= config.vocabSize) return;
  throw new TokenizerError(
    `${join(folder, "tokenizer.json")} has ${tokenizer.vocabSize} ids, the model ${config.vocabSize}`,
    {
      why: "an id beyond the embedding has no meaning to this model",
      fix: "use the tokenizer.json that was written with the weights",
      fields: { folder, tokenizer: tokenizer.vocabSize, model: config.vocabSize },
    },
  );
}

async function* write(
  runner: Runner,
  tokenizer: Tokenizer,
  prompt: string,
  options: WriteOptions,
): AsyncGenerator<string, void, undefined> {
  if (options.stop?.includes("") === true) {
    throw new UsageError("a stop text is empty", {
      why: "every text begins with it, so nothing could be written",
      fix: "give the text at which to stop, or leave it out",
    });
  }
  const encoded = tokenizer.encode(prompt);
  const ids = encoded.length > 0 ? encoded : Int32Array.of(tokenizer.eosId);
  const decoder = tokenizer.streamDecoder({ skipSpecial: true });
  const stops = options.stop ?? [];
  // What could be the beginning of a stop text is held back until it is known not to be.
  let held = "";
  for await (const id of generateIds(runner, ids, {
    temperature: 0.8,
    topP: 0.95,
    ...options,
    maxTokens: options.maxTokens ?? 128,
    stopIds: [tokenizer.eosId],
  })) {
    if (id >= tokenizer.vocabSize) continue;
    held += decoder.push(id);
    const end = firstStop(held, stops);
    if (end !== null) {
      yield held.slice(0, end);
      return;
    }
    const safe = held.length - longestPrefix(held, stops);
    if (safe > 0) yield held.slice(0, safe);
    held = held.slice(safe);
  }
  held += decoder.end();
  if (held !== "") yield held;
}

function firstStop(text: string, stops: readonly string[]): number | null {
  const found = stops.map((stop) => text.indexOf(stop)).filter((at) => at >= 0);
  return found.length === 0 ? null : Math.min(...found);
}

/** Length of the longest end of `text` with which a stop text begins. */
function longestPrefix(text: string, stops: readonly string[]): number {
  let longest = 0;
  for (const stop of stops) {
    for (let n = Math.min(stop.length - 1, text.length); n > longest; n--) {
      if (text.endsWith(stop.slice(0, n))) longest = n;
    }
  }
  return longest;
}
