/** Which layers are in which stage of the pipeline. The report does not say; here the busiest stage has as little as can be. */
import { isMoeLayer, type ModelConfig } from "../model/index.ts";

export interface Stage {
  readonly denseLayers: number;
  /** MTP's layers included. */
  readonly moeLayers: number;
  readonly hasEmbedding: boolean;
  readonly hasHead: boolean;
  /** MTP modules stand behind the last layer, beside the head that they share. */
  readonly mtpModules: number;
}

/** What the split weighs: seconds, FLOPs, or anything that adds up. */
export interface LayerWeights {
  readonly dense: number;
  readonly moe: number;
  /** Everything behind the last layer: head and MTP modules. */
  readonly tail: number;
}

/**
 * Contiguous stages such that the busiest rank has as little as can be: exactly where a rank has one stage; folded, by
 * moving layers between neighbours as long as that helps.
 *
 * @param isFolded  rank r holds stages r and S - 1 - r (DualPipe, DualPipeV), so that their sum counts
 */
export function splitStages(
  config: ModelConfig,
  numStages: number,
  weights: LayerWeights,
  isFolded: boolean,
): readonly Stage[] {
  const layers = Array.from({ length: config.numHiddenLayers }, (_, i) => isMoeLayer(config, i));
  const items = layers.map((isMoe) => (isMoe ? weights.moe : weights.dense));
  // The tail belongs to the last layer's stage or forms one of its own.
  items.push(weights.tail);
  const start = isFolded
    ? proportional(items, numStages)
    : fill(items, numStages, smallestMaximum(items, numStages));
  const sizes = evenOut(items, start, isFolded);
  let first = 0;
  return sizes.map((length, index): Stage => {
    const mine = layers.slice(first, first + length);
    const hasTail = first + length === items.length;
    first += length;
    const moe = mine.filter(Boolean).length;
    return {
      denseLayers: mine.length - moe,
      moeLayers: moe + (hasTail ? config.numNextnPredictLayers : 0),
      hasEmbedding: index === 0,
      hasHead: hasTail,
      mtpModules: hasTail ? config.numNextnPredictLayers : 0,
    };
  });
}

/** Moves one item over one boundary while that makes the busiest rank's sum, or at equal maxima the spread, smaller. */
function evenOut(items: readonly number[], start: readonly number[], isFolded: boolean): readonly number[] {
  let sizes = start;
  let best = imbalance(items, sizes, isFolded);
  for (let isBetter = true; isBetter; ) {
    isBetter = false;
    for (const moved of neighbours(sizes)) {
      const found = imbalance(items, moved, isFolded);
      const isLess =
        found.most < best.most / (1 + 1e-9) ||
        (found.most <= withSlack(best.most) && found.squares < best.squares / (1 + 1e-9));
      if (!isLess) continue;
      [sizes, best, isBetter] = [moved, found, true];
      break;
    }
  }
  return sizes;
}

function* neighbours(sizes: readonly number[]): Generator<readonly number[]> {
  for (let stage = 0; stage + 1 < sizes.length; stage++) {
    if (sizes[stage]! > 1) yield sizes.with(stage, sizes[stage]! - 1).with(stage + 1, sizes[stage + 1]! + 1);
    if (sizes[stage + 1]! > 1)
      yield sizes.with(stage, sizes[stage]! + 1).with(stage + 1, sizes[stage + 1]! - 1);
  }
}

function imbalance(
  items: readonly number[],
  sizes: readonly number[],
  isFolded: boolean,
): { most: number; squares: number } {
  const ranks: number[] = new Array<number>(isFolded ? sizes.length / 2 : sizes.length).fill(0);
  let next = 0;
  for (const [stage, size] of sizes.entries()) {
    const rank = isFolded ? Math.min(stage, sizes.length - 1 - stage) : stage;
    for (let i = 0; i < size; i++) ranks[rank]! += items[next++]!;
  }
  return { most: Math.max(...ranks), squares: ranks.reduce((sum, rank) => sum + rank * rank, 0) };
}

/** Binary search over the sums that some run of neighbours has. */
function smallestMaximum(items: readonly number[], parts: number): number {
  const sums = new Set<number>();
  for (let from = 0; from < items.length; from++) {
    let sum = 0;
    for (const item of items.slice(from)) {
      sum += item;
      sums.add(sum);
    }
  }
  const candidates = [...sums].sort((a, b) => a - b);
  let low = 0;
  let high = candidates.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (partsNeeded(items, candidates[middle]!) <= parts) high = middle;
    else low = middle + 1;
  }
  return candidates[low]!;
}

function partsNeeded(items: readonly number[], limit: number): number {
  let parts = 1;
  let sum = 0;
  for (const item of items) {
    if (item > withSlack(limit)) return Number.POSITIVE_INFINITY;
    if (sum + item > withSlack(limit)) {
      parts++;
      sum = 0;
    }
    sum += item;
  }
  return parts;
}

/** Items per part such that every boundary is as near as can be to its share of the whole. */
function proportional(items: readonly number[], parts: number): number[] {
  const total = items.reduce((sum, item) => sum + item, 0);
  const sizes: number[] = [];
  let next = 0;
  let sum = 0;
  for (let part = 1; part <= parts; part++) {
    const target = (part * total) / parts;
    let size = 0;
    while (
      next < items.length - (parts - part) &&
      (size === 0 || part === parts || sum + items[next]! / 2 <= target)
    ) {
      sum += items[next]!;
      next++;
      size++;
    }
    sizes.push(size);
  }
  return sizes;
}

/** Items per part: as many as the limit allows, yet one for every part that is still to come. */
function fill(items: readonly number[], parts: number, limit: number): number[] {
  const sizes: number[] = [];
  let next = 0;
  for (let part = 0; part < parts; part++) {
    const behind = parts - part - 1;
    let size = 0;
    let sum = 0;
    while (next < items.length - behind && (size === 0 || sum + items[next]! <= withSlack(limit))) {
      sum += items[next]!;
      next++;
      size++;
    }
    sizes.push(size);
  }
  return sizes;
}

/** Equal sums that were added in another order differ in their last bits. */
function withSlack(limit: number): number {
  return limit * (1 + 1e-12);
}
