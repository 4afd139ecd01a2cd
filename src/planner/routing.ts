/**
 * How many nodes and devices a token's experts are spread over: what the all-to-all moves depends on it.
 *
 * Counted over tokens with random affinities under the model's own rule (best groups by their two best experts, then the
 * best experts). Trained routers are less even; their traffic has the same bounds: topkGroup groups, numExpertsPerTok
 * devices.
 */
import type { ModelConfig } from "../model/index.ts";
import { dispatchTraffic } from "../parallel/index.ts";

/** Averages over tokens and over the place of the token's own device in the expert group. */
export interface Spread {
  /** Different nodes with an expert of the token. */
  readonly nodes: number;
  /** Of those, other nodes than the token's own: copies that cross between nodes. */
  readonly remoteNodes: number;
  /** Different devices with an expert of the token. */
  readonly devices: number;
  /** Hops inside a node: from the device of equal index (or the token's own) to another. */
  readonly hops: number;
}

const TOKENS = 2048;
const SENDERS = 7;

/** Which experts each of some tokens visits; the same in every run, so that one sample serves every layout. */
export type RoutingSample = readonly Int32Array[];

export function sampleRouting(config: ModelConfig): RoutingSample {
  const random = sequence(20241226);
  return Array.from({ length: TOKENS }, () => chooseExperts(config, random));
}

/** The spread for every size of an expert group, from one sample; each is counted once. */
export function spreads(
  config: ModelConfig,
  { devicesPerNode }: { devicesPerNode: number },
): (ep: number) => Spread {
  const sample = sampleRouting(config);
  const known = new Map<number, Spread>();
  return (ep) => {
    const spread = known.get(ep) ?? routingSpread(config, sample, { ep, devicesPerNode });
    known.set(ep, spread);
    return spread;
  };
}

/**
 * Counted for tokens of a few devices all over the group; the others' are spread alike.
 *
 * @param ep  devices of an expert group; `devicesPerNode` of them share a node
 */
export function routingSpread(
  { nRoutedExperts, numExpertsPerTok: topK }: ModelConfig,
  sample: RoutingSample,
  { ep, devicesPerNode }: { ep: number; devicesPerNode: number },
): Spread {
  const layout = { experts: nRoutedExperts, ranks: ep, ranksPerNode: Math.min(ep, devicesPerNode) };
  const senders = Math.min(ep, SENDERS);
  const sums = { nodes: 0, remoteNodes: 0, devices: 0, hops: 0 };
  for (let sender = 0; sender < senders; sender++) {
    const own = sample.filter((_, token) => token % senders === sender);
    const ids = own.flatMap((experts) => [...experts]);
    const traffic = dispatchTraffic(layout, Math.floor((sender * ep) / senders), { ids, topK });
    sums.nodes += traffic.nodesReached;
    sums.remoteNodes += traffic.interNode;
    sums.devices += traffic.ranksReached;
    sums.hops += traffic.intraNode;
  }
  return {
    nodes: sums.nodes / sample.length,
    remoteNodes: sums.remoteNodes / sample.length,
    devices: sums.devices / sample.length,
    hops: sums.hops / sample.length,
  };
}

function chooseExperts(config: ModelConfig, random: () => number): Int32Array {
  const { nRoutedExperts: E, numExpertsPerTok: K, nGroup: G, topkGroup } = config;
  const affinity = Float64Array.from({ length: E }, random);
  const size = E / G;
  const groupScores = Float64Array.from({ length: G }, (_, group) => {
    const own = affinity.subarray(group * size, (group + 1) * size);
    return best(own, Math.min(2, size)).reduce((sum, index) => sum + own[index]!, 0);
  });
  const open = new Set(best(groupScores, topkGroup));
  const candidates = affinity.map((score, expert) => (open.has(Math.floor(expert / size)) ? score : -1));
  return best(candidates, K);
}

/** Indices of the `count` largest, largest first. */
function best(scores: Float64Array, count: number): Int32Array {
  const chosen = new Int32Array(count).fill(-1);
  for (const [index, score] of scores.entries()) {
    let place = count;
    while (place > 0 && (chosen[place - 1]! < 0 || scores[chosen[place - 1]!]! < score)) place--;
    if (place === count) continue;
    chosen.copyWithin(place + 1, place, count - 1);
    chosen[place] = index;
  }
  return chosen;
}

/** Numbers in [0, 1) that are the same in every run (mulberry32). */
function sequence(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
