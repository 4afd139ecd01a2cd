/**
 * Draws the next token from a row of logits.
 *
 *   order   by logit, greatest first; of equal logits the lower id first
 *   top-k   the first k of the order
 *   top-p   of these the smallest prefix whose probability is at least p
 *   token   the first id, ids ascending, where the running probability exceeds the uniform number
 *
 * The uniform number is a function of seed and counter alone, so a text can be made again from any place.
 */
import { ConfigError, invariant } from "../../base/index.ts";
import { type Param, paramValue } from "../hostScalar.ts";
import { defineKernel, type Floats, type Kernel } from "../kernel.ts";
import type { Tensor } from "../tensor.ts";
import { blockWords } from "./random.ts";

/** The random stream of sampling; the streams of initial weights count up from 0. */
const STREAM = 2 ** 52;

export const sampleKernel: Kernel = defineKernel({
  name: "sample",
  operands: { logits: "in", token: "out i32" },
  params: ["V", "row", "temperature", "topK", "topP", "seed", "counter"],
  reference({ logits, token }, { V, row, temperature, topK, topP, seed, counter }) {
    const values = logits.subarray(row * V, (row + 1) * V);
    const order = byLogit(values);
    const greatest = values[order[0] ?? 0];
    if (greatest === undefined || !Number.isFinite(greatest) || values.some(Number.isNaN)) token[0] = -1;
    else if (temperature === 0) token[0] = order[0]!;
    else {
      const weights = Float64Array.from(values, (logit) => Math.exp((logit - greatest) / temperature));
      const kept = keepTopP(keepTopK(order, topK), weights, topP);
      token[0] = draw(kept, weights, uniform(seed, counter));
    }
  },
});

function byLogit(values: Floats): number[] {
  return [...values.keys()].sort((a, b) => values[b]! - values[a]! || a - b);
}

function keepTopK(order: readonly number[], topK: number): readonly number[] {
  return topK === 0 ? order : order.slice(0, topK);
}

function keepTopP(order: readonly number[], weights: Float64Array, topP: number): readonly number[] {
  const total = order.reduce((sum, id) => sum + weights[id]!, 0);
  let running = 0;
  const last = order.findIndex((id) => {
    running += weights[id]!;
    return running >= topP * total;
  });
  return topP === 1 || last === -1 ? order : order.slice(0, last + 1);
}

function draw(kept: readonly number[], weights: Float64Array, u: number): number {
  const ids = kept.filter((id) => weights[id]! > 0).sort((a, b) => a - b);
  const threshold = u * ids.reduce((sum, id) => sum + weights[id]!, 0);
  let running = 0;
  const drawn = ids.find((id) => {
    running += weights[id]!;
    return running > threshold;
  });
  // The product may have been rounded up to the whole sum: then the last token it is.
  return drawn ?? ids.at(-1)!;
}

/** 53 random bits as a number from 0 to 1, 1 excluded. */
function uniform(seed: number, counter: number): number {
  const [high, low] = blockWords(seed, STREAM, counter);
  return ((high >>> 5) * 2 ** 26 + (low >>> 6)) / 2 ** 53;
}

export interface SampleSettings {
  /** 0 takes the greatest logit, of equal ones the lowest id. */
  readonly temperature: number;
  /** Number of tokens to choose from; 0 is off. */
  readonly topK: number;
  /** Probability that the tokens to choose from have together; 1 is off. */
  readonly topP: number;
  readonly seed: number;
  /** Number of the draw: the same seed and counter draw alike. */
  readonly counter: Param;
}

/**
 * Draws one token.
 *
 * @param logits  [rows, V]; minus infinity is never drawn
 * @param row     the row to draw from
 * @returns       [1] i32; -1 if the row is no distribution: it holds a NaN or infinity, or nothing above minus infinity
 * @throws        {ConfigError} if a setting is impossible
 */
export function sampleToken(logits: Tensor, row: number, settings: SampleSettings): Tensor {
  const V = logits.dim(-1);
  invariant(row >= 0 && (row + 1) * V <= logits.size, `row ${row} lies in [${logits.shape.join(", ")}]`);
  requireSettings(settings);
  const { temperature, topK, topP, seed, counter } = settings;
  const token = logits.device.empty([1], "i32");
  const params = { V, row, temperature, topK, topP, seed, counter };
  logits.device.run(sampleKernel, { logits, token }, params);
  return token;
}

function requireSettings(settings: SampleSettings): void {
  const isCount = (value: number): boolean => Number.isSafeInteger(value) && value >= 0;
  const { temperature, topK, topP, seed } = settings;
  const counter = paramValue(settings.counter);
  if (!(temperature >= 0 && temperature < Infinity))
    refuse("temperature", temperature, "zero (the likeliest token) or more", "0.8");
  if (!isCount(topK)) refuse("topK", topK, "a whole number, 0 to switch it off", "40");
  if (!(topP >= 0 && topP <= 1)) refuse("topP", topP, "between 0 and 1, 1 to switch it off", "0.95");
  if (!isCount(seed)) refuse("seed", seed, "a whole number from 0 to 2^53 - 1", "0");
  invariant(isCount(counter), `counter ${counter} is a whole number`);
}

function refuse(name: string, value: number, rule: string, example: string): never {
  throw new ConfigError(`${name} is ${value}`, {
    why: `${name} must be ${rule}`,
    fix: `set ${name} to ${example}, for instance`,
    fields: { path: name, value },
  });
}

export const sampleKernels: readonly Kernel[] = [sampleKernel];
