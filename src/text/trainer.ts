/**
 * Trains byte-level BPE: again and again the most frequent pair of adjacent tokens becomes a token.
 *
 * Ties go to the smaller left id, then to the smaller right id, so that equal texts give equal
 * vocabularies. tables/pairCounts.ts keeps the counts; the plain twin in the test counts all pairs anew for
 * every merge.
 */

import { TokenizerError } from "../base/index.ts";
import { PieceScanner } from "./pretokenizer.ts";
import { MAX_MERGES } from "./tables/mergeTable.ts";
import { PairCounts } from "./tables/pairCounts.ts";
import { PieceTable } from "./tables/pieceTable.ts";
import { TimeSlice } from "./timeSlice.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { FIRST_MERGE_ID, NUM_FIXED_IDS, tokenizerFromMerges, v3ByteIds } from "./vocabulary.ts";

export interface TrainerProgress {
  /** Counting the words of the documents, then choosing merges. */
  readonly phase: "count" | "merge";
  /** Bytes of UTF-8 read, or merges chosen. */
  readonly done: number;
  /** Merges wanted; undefined while counting, because the documents come one by one. */
  readonly total: number | undefined;
}

export interface TrainerOptions {
  /** Of the tokenizer, its 264 special tokens and bytes included. */
  readonly vocabSize: number;
  /** Stops training: the promise rejects with the signal's reason. */
  readonly signal?: AbortSignal;
  /** Called about every 10 ms, and at the end of each phase. */
  readonly onProgress?: (progress: TrainerProgress) => void;
}

/** A pair that occurs once saves nothing: it is memory of one place. */
const MIN_COUNT = 2;
/** Pieces between two looks at the clock. */
const PIECES_PER_LOOK = 1024;

/**
 * A tokenizer of `vocabSize` ids, learnt from documents.
 *
 * Gives way to the event loop about every 10 ms; only the conversion of one document to UTF-8 is one
 * piece of work (a second for a gigabyte).
 *
 * @throws {TokenizerError} if the documents do not repeat enough pairs for `vocabSize`
 */
export async function trainTokenizer(
  documents: Iterable<string> | AsyncIterable<string>,
  options: TrainerOptions,
): Promise<Tokenizer> {
  const numWanted = numMergesFor(options.vocabSize);
  const slice = new TimeSlice(options.signal);
  const counts = await countPairs(await countWords(documents, slice, options), slice);
  const merges: (readonly [left: number, right: number])[] = [];
  const report = (): void => options.onProgress?.({ phase: "merge", done: merges.length, total: numWanted });
  while (merges.length < numWanted) {
    const best = counts.popBest();
    if (best === undefined || best.count < MIN_COUNT) throw tooLarge(options.vocabSize, merges.length);
    for (const _ of counts.merge(best, FIRST_MERGE_ID + merges.length)) if (slice.isOver) await slice.next();
    merges.push([best.left, best.right]);
    if (slice.isOver) {
      report();
      await slice.next();
    }
  }
  report();
  return tokenizerFromMerges(merges);
}

interface WordCounts {
  readonly words: PieceTable;
  /** By the word's number. */
  readonly counts: readonly number[];
}

async function countWords(
  documents: Iterable<string> | AsyncIterable<string>,
  slice: TimeSlice,
  options: TrainerOptions,
): Promise<WordCounts> {
  const words = new PieceTable();
  const counts: number[] = [];
  const scanner = new PieceScanner();
  const utf8 = new TextEncoder();
  let numBytes = 0;
  const report = (done: number): void => options.onProgress?.({ phase: "count", done, total: undefined });
  for await (const document of documents) {
    const bytes = utf8.encode(document);
    let numPieces = 0;
    for (let start = 0; start < bytes.length; numPieces++) {
      const end = scanner.pieceEnd(bytes, start);
      const word = words.add(bytes, start, end);
      counts[word] = (counts[word] ?? 0) + 1;
      start = end;
      if (numPieces % PIECES_PER_LOOK === 0 && slice.isOver) {
        report(numBytes + start);
        await slice.next();
      }
    }
    numBytes += bytes.length;
  }
  report(numBytes);
  return { words, counts };
}

async function countPairs({ words, counts }: WordCounts, slice: TimeSlice): Promise<PairCounts> {
  const byteIds = v3ByteIds();
  const pairs = new PairCounts();
  for (const [word, count] of counts.entries()) {
    pairs.addWord(words.bytesOf(word), byteIds, count);
    if (slice.isOver) await slice.next();
  }
  return pairs;
}

function numMergesFor(vocabSize: number): number {
  const max = NUM_FIXED_IDS + MAX_MERGES;
  if (Number.isInteger(vocabSize) && vocabSize >= NUM_FIXED_IDS && vocabSize <= max) {
    return vocabSize - NUM_FIXED_IDS;
  }
  throw new TokenizerError(`a vocabulary of ${vocabSize} ids cannot be trained`, {
    why: `it holds 256 bytes and 8 special tokens besides its merges: from ${NUM_FIXED_IDS} to ${max} ids`,
    fix: "take 4096 for a small model, 264 for bytes without merges",
    fields: { vocabSize, min: NUM_FIXED_IDS, max },
  });
}

function tooLarge(vocabSize: number, numSupported: number): TokenizerError {
  const largest = NUM_FIXED_IDS + numSupported;
  return new TokenizerError(`a vocabulary of ${vocabSize} ids is larger than the documents allow`, {
    why:
      `after ${numSupported} of ${vocabSize - NUM_FIXED_IDS} merges no pair of tokens occurs ${MIN_COUNT} times, ` +
      `so they support ${largest} ids`,
    fix: `set vocabSize to ${largest} or less, or give more text`,
    fields: { vocabSize, numMerges: numSupported, largestVocabSize: largest },
  });
}
