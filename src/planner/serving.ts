/**
 * Serving on paper: units of devices for prefill and decode, what one of them holds, and how fast a token can be.
 *
 * Source: DeepSeek-V3 report, section 3.4; production units of the open-infra-index (February 2025); the bound on the time
 * of an output token from arXiv 2505.09343, section 2.3.2.
 */
import { countParameters, isMoeLayer, latentWidth, type ModelConfig } from "../model/index.ts";
import type { Cluster, Device } from "./cluster.ts";

export interface ServingUnit {
  readonly name: string;
  readonly phase: "prefill" | "decode";
  readonly nodes: number;
  readonly devices: number;
  /** Copies of experts beyond one of each. */
  readonly redundantExperts: number;
}

/** Devices of a unit hold whole layers' attention and a share of the experts; all of it in FP8. */
export const servingUnits: readonly ServingUnit[] = [
  { name: "report, prefill", phase: "prefill", nodes: 4, devices: 32, redundantExperts: 32 },
  { name: "report, decode", phase: "decode", nodes: 40, devices: 320, redundantExperts: 64 },
  { name: "production, prefill", phase: "prefill", nodes: 4, devices: 32, redundantExperts: 32 },
  { name: "production, decode", phase: "decode", nodes: 18, devices: 144, redundantExperts: 32 },
];

export interface ServingPlan {
  readonly unit: ServingUnit;
  /** Slots for routed experts, and whether every device has as many. */
  readonly expertsPerDevice: number;
  readonly isEven: boolean;
  readonly weightBytes: number;
  /** Of the compressed cache: latent and rotary key, BF16, all layers. */
  readonly cacheBytesPerToken: number;
  /** What remains of a device's memory, a tenth of it kept free. */
  readonly cacheTokensPerDevice: number;
  readonly fits: boolean;
}

export function planServing(config: ModelConfig, { device }: Cluster, unit: ServingUnit): ServingPlan {
  const replicas = config.nRoutedExperts + unit.redundantExperts;
  const expertsPerDevice = replicas / unit.devices;
  const weightBytes = servingWeightBytes(config, Math.ceil(expertsPerDevice));
  const cacheBytesPerToken = 2 * latentWidth(config) * config.numHiddenLayers;
  const free = 0.9 * device.memoryBytes - weightBytes;
  return {
    unit,
    expertsPerDevice,
    isEven: Number.isInteger(expertsPerDevice),
    weightBytes,
    cacheBytesPerToken,
    cacheTokensPerDevice: Math.max(0, Math.floor(free / cacheBytesPerToken)),
    fits: free > 0,
  };
}

/** FP8 projections with their block scales; embedding and head in BF16; MTP not loaded. */
function servingWeightBytes(config: ModelConfig, expertsPerDevice: number): number {
  const counts = countParameters(config);
  const moe = Array.from({ length: config.numHiddenLayers }, (_, i) => isMoeLayer(config, i)).filter(
    Boolean,
  ).length;
  const dense = config.numHiddenLayers - moe;
  const experts = moe * (expertsPerDevice + config.nSharedExperts) * counts.expert;
  const linear = config.numHiddenLayers * counts.mlaPerLayer + dense * counts.denseMlp + experts;
  return linear * (1 + 4 / (128 * 128)) + 2 * (counts.embedding + counts.head + moe * counts.router);
}

export interface TokenBound {
  /** One dispatch in FP8 and one combine in BF16. */
  readonly exchangeSeconds: number;
  readonly layerSeconds: number;
  readonly secondsPerToken: number;
  readonly tokensPerSecond: number;
}

export interface DecodeLoad {
  /** Tokens of one micro-batch on one device. */
  readonly tokens: number;
  readonly bandwidth: number;
}

/**
 * The least time of an output token where the all-to-all is all there is: two micro-batches take turns on the network,
 * everything else hides behind it. The shared expert is a routed one that every token takes.
 *
 * @param load  bandwidth in bytes per second, tokens per micro-batch and device
 */
export function outputTokenBound(
  {
    hiddenSize,
    numExpertsPerTok,
    nSharedExperts,
    numHiddenLayers,
  }: Pick<ModelConfig, "hiddenSize" | "numExpertsPerTok" | "nSharedExperts" | "numHiddenLayers">,
  { tokens, bandwidth }: DecodeLoad,
): TokenBound {
  const copies = numExpertsPerTok + nSharedExperts;
  const exchangeSeconds = ((1 + 2) * tokens * copies * hiddenSize) / bandwidth;
  const layerSeconds = 2 * exchangeSeconds;
  const secondsPerToken = numHiddenLayers * layerSeconds;
  return { exchangeSeconds, layerSeconds, secondsPerToken, tokensPerSecond: 1 / secondsPerToken };
}

/** The published example rounds the hidden size to 7,000. */
export const publishedBound = { hiddenSize: 7000, tokens: 32 } as const;

/** The two networks of the published example: a 400 Gb/s card, and a GB200 NVL72. */
export const boundBandwidths: readonly { readonly name: string; readonly bandwidth: number }[] = [
  { name: "400 Gb/s card", bandwidth: 50e9 },
  { name: "NVL72", bandwidth: 900e9 },
];

/** Seconds to read once what a decode step reads: the device's weights and its requests' cache. */
export function decodeReadSeconds(
  { weightBytes, cacheBytesPerToken }: ServingPlan,
  device: Device,
  { requests, contextTokens }: { requests: number; contextTokens: number },
): number {
  return (weightBytes + requests * contextTokens * cacheBytesPerToken) / device.memoryBandwidth;
}
