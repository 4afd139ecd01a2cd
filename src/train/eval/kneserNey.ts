/**
 * An interpolated Kneser-Ney trigram over tokens: what counting alone makes of the same text.
 *
 * Source: Chen and Goodman, "An empirical study of smoothing techniques for language modeling" (1998), interpolated
 * form with one discount per order, D = n1 / (n1 + 2 n2).
 */
import { setImmediate as nextTurn } from "node:timers/promises";

/** Tokens handled between two looks at the event loop: a few milliseconds. */
const SLICE = 8192;

/** Counts of one context: its total, and how many different tokens follow it. */
interface Context {
  total: number;
  followers: number;
}

export class KneserNeyTrigram {
  readonly #vocabSize: number;
  readonly #start: number;
  readonly #trigrams: Map<number, number> = new Map();
  readonly #trigramContexts: Map<number, Context> = new Map();
  /** For a pair (b, c): how many different tokens stand before it. */
  readonly #bigrams: Map<number, number> = new Map();
  readonly #bigramContexts: Map<number, Context> = new Map();
  /** For a token: how many different tokens stand before it. */
  readonly #unigrams: Float64Array;
  #unigramTotal = 0;
  #unigramTypes = 0;
  #discounts: readonly [number, number, number] = [0.5, 0.5, 0.5];

  /** @param start  the token that stands before every document, twice */
  constructor(vocabSize: number, start: number) {
    this.#vocabSize = vocabSize;
    this.#start = start;
    this.#unigrams = new Float64Array(vocabSize);
  }

  async train(documents: readonly Int32Array[], signal?: AbortSignal): Promise<void> {
    for (const document of documents) {
      await this.#walk(document, signal, (a, b, c) => {
        const context = a * this.#vocabSize + b;
        const key = context * this.#vocabSize + c;
        const before = this.#trigrams.get(key) ?? 0;
        this.#trigrams.set(key, before + 1);
        count(this.#trigramContexts, context, 1, before === 0);
        // Lower orders count in how many contexts a token appears, not how often.
        if (before === 0) this.#countPair(b, c);
      });
    }
    this.#discounts = [
      discountOf(this.#unigrams),
      discountOf(this.#bigrams.values()),
      discountOf(this.#trigrams.values()),
    ];
  }

  /** Nats that the documents cost, all tokens together. */
  async nats(documents: readonly Int32Array[], signal?: AbortSignal): Promise<number> {
    let total = 0;
    for (const document of documents) {
      await this.#walk(document, signal, (a, b, c) => {
        total -= Math.log(this.probability(a, b, c));
      });
    }
    return total;
  }

  /** P(c | a b). */
  probability(a: number, b: number, c: number): number {
    const [d1, d2, d3] = this.#discounts;
    const V = this.#vocabSize;
    const uniform = 1 / V;
    const p1 =
      (Math.max(this.#unigrams[c]! - d1, 0) + d1 * this.#unigramTypes * uniform) / this.#unigramTotal;
    const p2 = backOff(this.#bigramContexts.get(b), this.#bigrams.get(b * V + c) ?? 0, d2, p1);
    const context = a * V + b;
    return backOff(this.#trigramContexts.get(context), this.#trigrams.get(context * V + c) ?? 0, d3, p2);
  }

  #countPair(b: number, c: number): void {
    const key = b * this.#vocabSize + c;
    const before = this.#bigrams.get(key) ?? 0;
    this.#bigrams.set(key, before + 1);
    count(this.#bigramContexts, b, 1, before === 0);
    if (before > 0) return;
    if (this.#unigrams[c] === 0) this.#unigramTypes++;
    this.#unigrams[c] = this.#unigrams[c]! + 1;
    this.#unigramTotal++;
  }

  async #walk(
    document: Int32Array,
    signal: AbortSignal | undefined,
    visit: (a: number, b: number, c: number) => void,
  ): Promise<void> {
    let [a, b] = [this.#start, this.#start];
    for (const [i, c] of document.entries()) {
      visit(a, b, c);
      [a, b] = [b, c];
      if (i % SLICE === SLICE - 1) {
        signal?.throwIfAborted();
        await nextTurn();
      }
    }
  }
}

function count(contexts: Map<number, Context>, key: number, amount: number, isNew: boolean): void {
  const context = contexts.get(key);
  if (context === undefined) contexts.set(key, { total: amount, followers: 1 });
  else {
    context.total += amount;
    if (isNew) context.followers++;
  }
}

function backOff(context: Context | undefined, seen: number, discount: number, lower: number): number {
  if (context === undefined) return lower;
  return (Math.max(seen - discount, 0) + discount * context.followers * lower) / context.total;
}

function discountOf(counts: Iterable<number>): number {
  let [ones, twos] = [0, 0];
  for (const value of counts) {
    if (value === 1) ones++;
    else if (value === 2) twos++;
  }
  return ones === 0 ? 0.5 : Math.min(0.95, ones / (ones + 2 * twos));
}
