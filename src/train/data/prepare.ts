/**
 * From documents to rows on disk: split, tokens, fill-in-the-middle, packing; and the held-out text beside it.
 *
 * A document ends with the end-of-sentence token; none begins with a special one. Held-out documents are left as
 * they are and laid one behind another, so that each of their tokens is predicted exactly once.
 */
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import { DataError } from "../../base/index.ts";
import { errorCode, writeFileAtomic } from "../../run/index.ts";
import type { Tokenizer } from "../../text/index.ts";
import type { DataConfig } from "../config.ts";
import type { EvaluationSet } from "../eval/evaluate.ts";
import type { Document } from "./documents.ts";
import { fimEncode } from "./fim.ts";
import { packRows, planPacking } from "./pack.ts";
import { uniforms } from "./random.ts";
import { Shard, writeShard } from "./shard.ts";
import { splitDocuments } from "./splitDocuments.ts";
import { splitFusedTokens } from "./splitFused.ts";

export interface SplitCounts {
  readonly documents: number;
  readonly bytes: number;
  readonly tokens: number;
}

/** data/index.json of a run. */
export interface DataIndex {
  readonly schema: 1;
  readonly source: readonly string[];
  readonly vocabSize: number;
  readonly rowWidth: number;
  readonly train: SplitCounts;
  readonly validation: SplitCounts;
  readonly rows: number;
  /** Share of the rows' places that hold no token. */
  readonly padding: number;
  readonly fimDocuments: number;
}

export interface PreparedData {
  readonly index: DataIndex;
  readonly train: Shard;
  /** Null if nothing is held out. */
  readonly validation: EvaluationSet | null;
}

export interface PrepareOptions {
  readonly files: readonly string[];
  readonly config: DataConfig;
  readonly rowLength: number;
  readonly seed: number;
  readonly signal?: AbortSignal;
}

/** Prepares the data below `folder`, or opens what was prepared there before. */
export async function prepareData(
  folder: string,
  tokenizer: Tokenizer,
  options: PrepareOptions,
): Promise<PreparedData> {
  const known = await readIndex(folder);
  if (known !== null) return openPrepared(folder, known, tokenizer);
  const { config, rowLength, seed, signal } = options;
  await mkdir(folder, { recursive: true });
  const split = await splitDocuments(options.files, config.validationEvery, signal);
  const rowWidth = rowLength + 1;

  const train = await encodeTraining(split.train, tokenizer, config, seed, signal);
  const plan = planPacking(
    train.documents.map(({ length }) => length),
    rowWidth,
  );
  const held = await encodeHeldOut(split.validation, tokenizer, signal);
  const trainTokens = train.documents.reduce((sum, ids) => sum + ids.length, 0);
  requireEnough(options.files, trainTokens, rowWidth);
  await writeShard(
    join(folder, "train.bin"),
    packRows(train.documents, plan, rowWidth),
    rowWidth,
    tokenizer.vocabSize,
  );
  const windows = cutWindows(held.ids, rowLength);
  await writeShard(join(folder, "validation.bin"), windows, rowWidth, tokenizer.vocabSize);
  const index: DataIndex = {
    schema: 1,
    source: options.files,
    vocabSize: tokenizer.vocabSize,
    rowWidth,
    train: { documents: split.train.length, bytes: bytesOf(split.train), tokens: trainTokens },
    validation: {
      documents: split.validation.length,
      bytes: bytesOf(split.validation),
      tokens: held.ids.length,
    },
    rows: plan.length,
    padding: 1 - trainTokens / (plan.length * rowWidth),
    fimDocuments: train.fimDocuments,
  };
  await writeFileAtomic(join(folder, "index.json"), `${JSON.stringify(index, null, 2)}\n`);
  return openPrepared(folder, index, tokenizer);
}

/**
 * Opens the data that was prepared below `folder`, and prepares nothing.
 *
 * @throws {DataError} if none is there, or it was made with another vocabulary
 */
export async function openData(folder: string, tokenizer: Tokenizer): Promise<PreparedData> {
  const index = await readIndex(folder);
  if (index !== null) return openPrepared(folder, index, tokenizer);
  throw new DataError(`${folder} holds no prepared data`, {
    why: "it has no index.json, which is written last",
    fix: "go on with the run on one process, which prepares the data: minke train --run DIR --resume",
    fields: { folder },
  });
}

async function openPrepared(folder: string, index: DataIndex, tokenizer: Tokenizer): Promise<PreparedData> {
  if (index.vocabSize !== tokenizer.vocabSize) {
    throw new DataError(
      `${folder} was prepared with a vocabulary of ${index.vocabSize}, the tokenizer has ${tokenizer.vocabSize}`,
      {
        why: "token ids mean nothing under another tokenizer",
        fix: "delete the folder to prepare the data anew, or use the tokenizer of the run",
        fields: { folder },
      },
    );
  }
  const held = await Shard.open(join(folder, "validation.bin"));
  const all = await held.read(Array.from({ length: held.count }, (_, i) => i));
  await held.close();
  const train = await Shard.open(join(folder, "train.bin"));
  return { index, train, validation: held.count === 0 ? null : evaluationSet(all, held.rowWidth, tokenizer) };
}

function evaluationSet(tokens: Int32Array, rowWidth: number, tokenizer: Tokenizer): EvaluationSet {
  const count = tokens.length / rowWidth;
  const bytes = new Map<number, number>();
  return {
    rows: { tokens, count, rowLength: rowWidth - 1 },
    bytesOf(id) {
      if (id === tokenizer.eosId) return 0;
      const known = bytes.get(id) ?? tokenizer.bytesOf(id).length;
      bytes.set(id, known);
      return known;
    },
  };
}

async function encodeTraining(
  documents: readonly Document[],
  tokenizer: Tokenizer,
  config: DataConfig,
  seed: number,
  signal?: AbortSignal,
): Promise<{ readonly documents: readonly Int32Array[]; readonly fimDocuments: number }> {
  const encoded: Int32Array[] = [];
  let fimDocuments = 0;
  for (const [i, { text }] of documents.entries()) {
    signal?.throwIfAborted();
    const fim = uniforms(seed, "fim", i);
    const isFim = tokenizer.fim !== undefined && fim() < config.fimRate;
    if (isFim) fimDocuments++;
    const ids =
      isFim && tokenizer.fim !== undefined
        ? await fimEncode(text, tokenizer, tokenizer.fim, fim, signal)
        : await tokenizer.encodeInSlices(text, {}, signal);
    const split = splitFusedTokens(ids, tokenizer, config.splitRate, uniforms(seed, "split", i));
    encoded.push(Int32Array.from([...split, tokenizer.eosId]));
    await nextTurn();
  }
  return { documents: encoded, fimDocuments };
}

async function encodeHeldOut(
  documents: readonly Document[],
  tokenizer: Tokenizer,
  signal?: AbortSignal,
): Promise<{ readonly ids: Int32Array }> {
  // The first token of the stream is never predicted: an end of sentence stands there, as before every other document.
  const parts: Int32Array[] = [];
  for (const { text } of documents) parts.push(await tokenizer.encodeInSlices(text, {}, signal));
  const ids = new Int32Array(
    parts.reduce((sum, part) => sum + part.length + 1, documents.length > 0 ? 1 : 0),
  );
  let at = 0;
  if (documents.length > 0) ids[at++] = tokenizer.eosId;
  for (const part of parts) {
    ids.set(part, at);
    at += part.length;
    ids[at++] = tokenizer.eosId;
  }
  return { ids };
}

/** Windows of T + 1 tokens that overlap by one, so that every token but the first is a target once. */
function cutWindows(ids: Int32Array, rowLength: number): Int32Array {
  const count = Math.ceil(Math.max(0, ids.length - 1) / rowLength);
  const rows = new Int32Array(count * (rowLength + 1)).fill(-1);
  for (let r = 0; r < count; r++) {
    rows.set(ids.subarray(r * rowLength, (r + 1) * rowLength + 1), r * (rowLength + 1));
  }
  return rows;
}

function bytesOf(documents: readonly Document[]): number {
  return documents.reduce((sum, { text }) => sum + Buffer.byteLength(text), 0);
}

function requireEnough(files: readonly string[], tokens: number, rowWidth: number): void {
  if (tokens >= rowWidth) return;
  throw new DataError(
    `${files.join(", ")}: ${tokens} tokens to train on do not fill one row of ${rowWidth}`,
    {
      why: "a model learns from whole rows; most of this one would be padding",
      fix: `give more text, or use shorter rows: --set rowLength=${Math.max(1, Math.min(32, tokens - 1))}`,
      fields: { files, tokens, rowWidth },
    },
  );
}

async function readIndex(folder: string): Promise<DataIndex | null> {
  const path = join(folder, "index.json");
  try {
    return JSON.parse(await readFile(path, "utf8")) as DataIndex;
  } catch (error) {
    if (errorCode(error) === "ENOENT") return null;
    if (!(error instanceof SyntaxError)) throw error;
    throw new DataError(`${path} is not JSON`, {
      why: error.message,
      fix: "delete the run's data/ folder: the same command prepares it anew from the same documents",
      fields: { path },
      cause: error,
    });
  }
}
