/**
 * From what the user asked for to a run that can start: its folder, tokenizer, data and final config.
 *
 * `--minutes` is resolved here, once: the machine's speed is measured on steps that are thrown away, and the number
 * of steps is fixed and stored, so that `--steps N` gives the same bits again.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { applySettings, ConfigError, RunError, type RunEventBody, TokenizerError } from "../base/index.ts";
import { firstAlone } from "../parallel/index.ts";
import { readManifest, writeFileAtomic } from "../run/index.ts";
import {
  byteTokenizer,
  readTokenizer,
  type Tokenizer,
  trainTokenizer,
  writeTokenizerConfig,
  writeTokenizerJson,
} from "../text/index.ts";
import {
  findDocumentFiles,
  openData,
  openSession,
  type PreparedData,
  prepareData,
  RowSampler,
  scheduleAt,
  splitDocuments,
  type TrainConfig,
  trainConfigSchema,
} from "../train/index.ts";
import type { OpenRank } from "./openRanks.ts";

export interface PreparedRun {
  readonly tokenizer: Tokenizer;
  readonly data: PreparedData;
  /** To be emitted once the run has started. */
  readonly events: readonly RunEventBody[];
}

const TOKENIZER_FILE = "tokenizer.json";

/** What preparing leaves in the run's folder. */
export const preparedNames: readonly string[] = [TOKENIZER_FILE, "tokenizer_config.json", "data"];

/** Tokenizer and data of a run, made in its folder or found there. */
export async function prepareRun(
  root: string,
  config: TrainConfig,
  signal: AbortSignal,
  status: (text: string) => void,
): Promise<PreparedRun> {
  const events: RunEventBody[] = [];
  const { files, skipped } = await findDocumentFiles(config.data.paths);
  if (skipped > 0) {
    events.push({
      type: "run.warning",
      what: `${skipped} files of other kinds were left out of the data`,
      why: "documents come from .txt, .md, .jsonl and .parquet",
      fix: null,
    });
  }
  const tokenizer = await timed(events, "tokenizer", () =>
    obtainTokenizer(root, config, files, signal, status, events),
  );
  const started = performance.now();
  status("preparing the data");
  const data = await timed(events, "data", () =>
    prepareData(join(root, "data"), tokenizer, {
      files,
      config: config.data,
      rowLength: config.rowLength,
      seed: config.seed,
      signal,
    }),
  );
  const { train, validation } = data.index;
  events.push({
    type: "data.prepared",
    source: config.data.paths.join(", "),
    documents: train.documents + validation.documents,
    bytes: train.bytes + validation.bytes,
    tokens: train.tokens + validation.tokens,
    train,
    validation,
    vocabSize: tokenizer.vocabSize,
    seconds: (performance.now() - started) / 1000,
  });
  return { tokenizer, data, events };
}

/**
 * Tokenizer and data of a run as they lie in its folder: nothing is made, and no text is read.
 *
 * @throws {RunError} if the folder is no run, or has no tokenizer; {DataError} if it has no data
 */
export async function openPrepared(root: string): Promise<PreparedRun> {
  await readManifest(root);
  const stored = join(root, TOKENIZER_FILE);
  const tokenizer = await readTokenizerAt(stored);
  if (tokenizer !== null)
    return { tokenizer, data: await openData(join(root, "data"), tokenizer), events: [] };
  throw new RunError(`${stored} cannot be read`, {
    why: "the run's first rank makes it before the others open the run",
    fix: "put the run on a file system that all hosts share: --run DIR",
    fields: { path: stored },
  });
}

async function timed<T>(events: RunEventBody[], name: string, task: () => Promise<T>): Promise<T> {
  const started = performance.now();
  const result = await task();
  events.push({ type: "run.phase", name, seconds: (performance.now() - started) / 1000 });
  return result;
}

async function obtainTokenizer(
  root: string,
  config: TrainConfig,
  files: readonly string[],
  signal: AbortSignal,
  status: (text: string) => void,
  events: RunEventBody[],
): Promise<Tokenizer> {
  const stored = join(root, TOKENIZER_FILE);
  const known = await readTokenizerAt(stored);
  if (known !== null) return known;
  const tokenizer = await chooseTokenizer(config, files, signal, status, events);
  if (tokenizer.vocabSize > config.model.vocabSize) {
    throw new ConfigError(
      `the tokenizer has ${tokenizer.vocabSize} ids, the model ${config.model.vocabSize}`,
      {
        why: "every id needs a row in the embedding and in the head",
        fix: `use --set model.vocabSize=${tokenizer.vocabSize}, or a smaller tokenizer`,
        fields: { tokenizer: tokenizer.vocabSize, model: config.model.vocabSize },
      },
    );
  }
  await writeFileAtomic(stored, writeTokenizerJson(tokenizer));
  await writeFileAtomic(join(root, "tokenizer_config.json"), writeTokenizerConfig(tokenizer));
  return tokenizer;
}

async function chooseTokenizer(
  config: TrainConfig,
  files: readonly string[],
  signal: AbortSignal,
  status: (text: string) => void,
  events: RunEventBody[],
): Promise<Tokenizer> {
  const { tokenizer: wanted, validationEvery } = config.data;
  if (wanted === "bytes") return byteTokenizer();
  if (wanted !== null) return loadTokenizer(wanted);
  const started = performance.now();
  status(`training a tokenizer of ${config.model.vocabSize} tokens`);
  const { train } = await splitDocuments(files, validationEvery, signal);
  const texts = train.map(({ text }) => text);
  const tokenizer = await trainTokenizer(texts, { vocabSize: config.model.vocabSize, signal }).catch(
    (error: unknown) => {
      throw asModelSetting(error);
    },
  );
  const sample = train.slice(0, 16).map(({ text }) => text);
  const bytes = train.reduce((sum, { text }) => sum + Buffer.byteLength(text), 0);
  const sampleBytes = sample.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
  const sampleTokens = sample.reduce((sum, text) => sum + tokenizer.encode(text).length, 0);
  events.push({
    type: "tokenizer.trained",
    vocabSize: tokenizer.vocabSize,
    numMerges: tokenizer.vocabulary.merges.size,
    bytes,
    bytesPerToken: sampleBytes / sampleTokens,
    seconds: (performance.now() - started) / 1000,
  });
  return tokenizer;
}

/** The trainer names its own option; whoever trains a model has to change the model's. */
function asModelSetting(error: unknown): unknown {
  const largest = error instanceof TokenizerError ? error.fields["largestVocabSize"] : undefined;
  if (!(error instanceof TokenizerError) || typeof largest !== "number") return error;
  const { what, why, fields } = error;
  const fix = `use --set model.vocabSize=${largest} or less, or give more text`;
  return new TokenizerError(what, { why, fix, fields, cause: error });
}

/** A tokenizer from its file, or from the folder that holds tokenizer.json. */
export async function loadTokenizer(path: string): Promise<Tokenizer> {
  const found = (await readTokenizerAt(path)) ?? (await readTokenizerAt(join(path, "tokenizer.json")));
  if (found !== null) return found;
  throw new TokenizerError(`${path} holds no tokenizer`, {
    why: "a tokenizer is a tokenizer.json, or a folder with one",
    fix: "make one: minke tokenizer train --data PATH --vocab-size N --out FOLDER",
    fields: { path },
  });
}

async function readTokenizerAt(path: string): Promise<Tokenizer | null> {
  const text = await readFile(path, "utf8").catch(() => null);
  if (text === null) return null;
  try {
    return readTokenizer(text);
  } catch (error) {
    if (!(error instanceof TokenizerError)) throw error;
    // The reader knows a text, not where it came from.
    const { why, fix, fields } = error;
    throw new TokenizerError(error.what.replace(/^tokenizer\.json/, path), {
      why,
      fix,
      fields,
      cause: error,
    });
  }
}

/** How long the speed is measured, and in how many steps at the least. */
const [MEASURING_SECONDS, MEASURED_STEPS] = [3, 2];

/**
 * Seconds of one step on this machine, on weights that are thrown away: the mean of some seconds. The best of them would
 * be the machine's speed with nobody else on it, and a run would take longer than it may.
 */
export async function measureStepSeconds(
  { device, team }: Pick<OpenRank, "device" | "team">,
  config: TrainConfig,
  data: PreparedData,
): Promise<number> {
  const session = openSession(device, config, { padId: 0, eosId: 0 }, team);
  const sampler = new RowSampler(data.train, config.seed);
  session.initialize();
  const scheduled = scheduleAt(config, { step: 0, share: 0 });
  const step = async (): Promise<number> => {
    const rows = sampler.next(config.batchRows);
    const started = performance.now();
    await session.runner.compute(rows, scheduled);
    session.runner.commit(scheduled);
    await device.drain();
    return (performance.now() - started) / 1000;
  };
  // Touches every page for the first time, and records what the next ones replay.
  await step();
  let [seconds, steps] = [0, 0];
  // Ranks take as many steps as the first wants.
  const isEnough = async (): Promise<boolean> => steps >= MEASURED_STEPS && seconds >= MEASURING_SECONDS;
  while (!(team === null ? await isEnough() : await firstAlone(team.communicator, isEnough))) {
    seconds += await step();
    steps++;
  }
  session.dispose();
  return seconds / steps;
}

/** Of a time budget, what steps may take: evaluations, samples and checkpoints need the rest. */
const SHARE_FOR_STEPS = 0.85;

export function stepsFor(minutes: number, stepSeconds: number): number {
  return Math.max(1, Math.floor((minutes * 60 * SHARE_FOR_STEPS) / stepSeconds));
}

export function withSettings(config: TrainConfig, settings: readonly string[]): TrainConfig {
  return applySettings(trainConfigSchema, config, settings);
}
