/**
 * Exact parameter and FLOP counts of a config, from the equations alone.
 *
 * Source: DeepSeek-V3 report, sections 2.1 and 4.2 (671B total, 37B activated); FLOPs as published in
 * arXiv 2505.09343: 6 per activated parameter and token, attention over the causal average length.
 */
import { isMoeLayer, type ModelConfig, qkHeadDim } from "./config.ts";

export interface ParameterCounts {
  readonly embedding: number;
  readonly head: number;
  readonly mlaPerLayer: number;
  readonly denseMlp: number;
  readonly expert: number;
  /** Router weight and bias. */
  readonly router: number;
  readonly denseLayer: number;
  readonly moeLayer: number;
  /** Everything that trains or steers, without MTP. */
  readonly main: number;
  /** One MTP module, without the embedding and head that it shares. */
  readonly mtpModule: number;
  /** What one token multiplies with: all, without the embedding look-up, without embedding and head. */
  readonly active: { readonly all: number; readonly withoutEmbedding: number; readonly withoutBoth: number };
  /** As a checkpoint stores it, MTP's copies of embedding and head included. */
  readonly stored: number;
}

export function countParameters(config: ModelConfig): ParameterCounts {
  const {
    hiddenSize: D,
    vocabSize,
    numHiddenLayers: L,
    nRoutedExperts: E,
    nSharedExperts,
    numExpertsPerTok: K,
  } = config;
  const embedding = vocabSize * D;
  const mla = countMla(config);
  const denseMlp = 3 * D * config.intermediateSize;
  const expert = 3 * D * config.moeIntermediateSize;
  const hasBias = config.topkMethod === "noaux_tc";
  const router = E * D + (hasBias ? E : 0);
  const norms = 2 * D;
  const denseLayer = mla + denseMlp + norms;
  const moeLayer = mla + (E + nSharedExperts) * expert + router + norms;
  const activeMoeLayer = mla + (K + nSharedExperts) * expert + router + norms;
  const numMoe = Array.from({ length: L }, (_, i) => isMoeLayer(config, i)).filter(Boolean).length;
  const layers = (moe: number): number => (L - numMoe) * denseLayer + numMoe * moe;
  const main = 2 * embedding + layers(moeLayer) + D;
  const mtpModule = moeLayer + 2 * D * D + 3 * D;
  const activeAll = 2 * embedding + layers(activeMoeLayer) + D;
  return {
    embedding,
    head: embedding,
    mlaPerLayer: mla,
    denseMlp,
    expert,
    router,
    denseLayer,
    moeLayer,
    main,
    mtpModule,
    active: {
      all: activeAll,
      withoutEmbedding: activeAll - embedding,
      withoutBoth: activeAll - 2 * embedding,
    },
    stored: main + config.numNextnPredictLayers * (mtpModule + 2 * embedding),
  };
}

function countMla(config: ModelConfig): number {
  const {
    hiddenSize: D,
    numAttentionHeads: H,
    qLoraRank,
    kvLoraRank: C,
    qkRopeHeadDim: R,
    vHeadDim: V,
  } = config;
  const q = H * qkHeadDim(config);
  const query = qLoraRank === null ? q * D : qLoraRank * D + q * qLoraRank + qLoraRank;
  return query + (C + R) * D + C + H * (config.qkNopeHeadDim + V) * C + D * H * V;
}

export interface FlopCounts {
  /** Per token, forward and backward, causal attention; the main model without its embedding look-up. */
  readonly main: number;
  /** The same for all MTP modules, each with its pass through the shared head. */
  readonly mtp: number;
  readonly total: number;
}

/**
 * Training FLOPs per token: what the mathematics needs, recomputation and balance losses not counted.
 *
 * @param sequenceLength  tokens in a row; a token attends to half of them on average
 */
export function trainingFlopsPerToken(config: ModelConfig, sequenceLength: number): FlopCounts {
  const {
    hiddenSize: D,
    numAttentionHeads: H,
    vHeadDim: V,
    numNextnPredictLayers,
    numHiddenLayers: L,
  } = config;
  const counts = countParameters(config);
  const attention = 3 * 2 * H * (qkHeadDim(config) + V) * (sequenceLength / 2);
  const activeExperts = config.numExpertsPerTok + config.nSharedExperts;
  const moeLayer = counts.mlaPerLayer + activeExperts * counts.expert + counts.router + 2 * D;
  const main = 6 * counts.active.withoutEmbedding + L * attention;
  const mtp = numNextnPredictLayers * (6 * (moeLayer + 2 * D * D + 3 * D + counts.head) + attention);
  return { main, mtp, total: main + mtp };
}
