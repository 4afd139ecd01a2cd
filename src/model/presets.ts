/** Presets are functions that return a complete config; a variant calls one and changes fields. */
import { ConfigError, nearestName } from "../base/index.ts";
import type { ModelConfig } from "./config.ts";
import { parseModelConfig } from "./configSchema.ts";

/** Report section 4.2: N(0, 0.006) at width 7168; kept in proportion to 1 / sqrt(width). */
function initializerRange(hiddenSize: number): number {
  return 0.006 * Math.sqrt(7168 / hiddenSize);
}

/** What our small presets share: groups of experts, one shared expert, sigmoid routing with bias, MTP depth 1. */
function small(sizes: Record<string, number>, name: string): ModelConfig {
  return parseModelConfig(
    {
      firstKDenseReplace: 1,
      nSharedExperts: 1,
      nGroup: 4,
      topkGroup: 2,
      routedScalingFactor: 2.5,
      numNextnPredictLayers: 1,
      initializerRange: initializerRange(sizes["hiddenSize"] ?? 0),
      numKeyValueHeads: sizes["numAttentionHeads"],
      ...sizes,
    },
    `preset ${name}`,
  );
}

/** For unit tests and finite differences. */
export function unit(): ModelConfig {
  return small(
    {
      vocabSize: 512,
      maxPositionEmbeddings: 32,
      hiddenSize: 32,
      numHiddenLayers: 2,
      numAttentionHeads: 2,
      qkNopeHeadDim: 16,
      qkRopeHeadDim: 8,
      vHeadDim: 16,
      qLoraRank: 24,
      kvLoraRank: 16,
      nRoutedExperts: 8,
      numExpertsPerTok: 2,
      moeIntermediateSize: 16,
      intermediateSize: 48,
    },
    "unit",
  );
}

/** For quick runs and CI's training tests. */
export function micro(): ModelConfig {
  return small(
    {
      vocabSize: 2048,
      maxPositionEmbeddings: 128,
      hiddenSize: 128,
      numHiddenLayers: 4,
      numAttentionHeads: 4,
      qkNopeHeadDim: 16,
      qkRopeHeadDim: 8,
      vHeadDim: 16,
      qLoraRank: 48,
      kvLoraRank: 32,
      nRoutedExperts: 8,
      numExpertsPerTok: 2,
      moeIntermediateSize: 96,
      intermediateSize: 352,
    },
    "micro",
  );
}

/** For bytes of a small text, as fast as can be: the race of bench/shakespeare.ts. */
export function shakespeare(): ModelConfig {
  return small(
    {
      vocabSize: 264,
      maxPositionEmbeddings: 64,
      hiddenSize: 128,
      numHiddenLayers: 3,
      numAttentionHeads: 4,
      qkNopeHeadDim: 16,
      qkRopeHeadDim: 8,
      vHeadDim: 16,
      qLoraRank: 48,
      kvLoraRank: 32,
      nRoutedExperts: 8,
      numExpertsPerTok: 2,
      moeIntermediateSize: 96,
      intermediateSize: 352,
    },
    "shakespeare",
  );
}

/** The quickstart and the main benchmark. */
export function nano(): ModelConfig {
  return small(
    {
      vocabSize: 4096,
      maxPositionEmbeddings: 256,
      hiddenSize: 256,
      numHiddenLayers: 6,
      numAttentionHeads: 4,
      qkNopeHeadDim: 32,
      qkRopeHeadDim: 16,
      vHeadDim: 32,
      qLoraRank: 96,
      kvLoraRank: 64,
      nRoutedExperts: 16,
      numExpertsPerTok: 4,
      moeIntermediateSize: 128,
      intermediateSize: 704,
    },
    "nano",
  );
}

/** Longer runs. */
export function mini(): ModelConfig {
  return small(
    {
      vocabSize: 8192,
      maxPositionEmbeddings: 512,
      hiddenSize: 512,
      numHiddenLayers: 8,
      numAttentionHeads: 8,
      qkNopeHeadDim: 64,
      qkRopeHeadDim: 32,
      vHeadDim: 64,
      qLoraRank: 192,
      kvLoraRank: 128,
      nRoutedExperts: 32,
      numExpertsPerTok: 4,
      moeIntermediateSize: 192,
      intermediateSize: 1408,
    },
    "mini",
  );
}

const yarn40 = { type: "yarn", factor: 40, originalMaxPositionEmbeddings: 4096, betaFast: 32, betaSlow: 1 };

/** DeepSeek-V3 as released. */
export function v3671b(): ModelConfig {
  return parseModelConfig(
    {
      vocabSize: 129280,
      hiddenSize: 7168,
      intermediateSize: 18432,
      moeIntermediateSize: 2048,
      numHiddenLayers: 61,
      numNextnPredictLayers: 1,
      numAttentionHeads: 128,
      numKeyValueHeads: 128,
      nSharedExperts: 1,
      nRoutedExperts: 256,
      numExpertsPerTok: 8,
      routedScalingFactor: 2.5,
      nGroup: 8,
      topkGroup: 4,
      firstKDenseReplace: 3,
      kvLoraRank: 512,
      qLoraRank: 1536,
      qkNopeHeadDim: 128,
      qkRopeHeadDim: 64,
      vHeadDim: 128,
      maxPositionEmbeddings: 163840,
      ropeScaling: { ...yarn40, mscale: 1, mscaleAllDim: 1 },
      initializerRange: 0.02,
      quantizationConfig: {
        quantMethod: "fp8",
        fmt: "e4m3",
        activationScheme: "dynamic",
        weightBlockSize: [128, 128],
      },
    },
    "preset v3-671b",
  );
}

/** DeepSeek-V2-Lite: softmax routing without bias, no query compression. */
export function v2Lite16b(): ModelConfig {
  return parseModelConfig(
    {
      architectures: ["DeepseekV2ForCausalLM"],
      modelType: "deepseek_v2",
      vocabSize: 102400,
      hiddenSize: 2048,
      intermediateSize: 10944,
      moeIntermediateSize: 1408,
      numHiddenLayers: 27,
      numAttentionHeads: 16,
      numKeyValueHeads: 16,
      nSharedExperts: 2,
      nRoutedExperts: 64,
      numExpertsPerTok: 6,
      routedScalingFactor: 1,
      normTopkProb: false,
      scoringFunc: "softmax",
      topkMethod: "greedy",
      firstKDenseReplace: 1,
      kvLoraRank: 512,
      qLoraRank: null,
      qkNopeHeadDim: 128,
      qkRopeHeadDim: 64,
      vHeadDim: 128,
      maxPositionEmbeddings: 163840,
      ropeScaling: { ...yarn40, mscale: 0.707, mscaleAllDim: 0.707 },
      bosTokenId: 100000,
      eosTokenId: 100001,
    },
    "preset v2-lite-16b",
  );
}

/** Moonlight-16B-A3B: V3's architecture at V2-Lite's size. */
export function moonlight16bA3b(): ModelConfig {
  return parseModelConfig(
    {
      vocabSize: 163840,
      hiddenSize: 2048,
      intermediateSize: 11264,
      moeIntermediateSize: 1408,
      numHiddenLayers: 27,
      numAttentionHeads: 16,
      numKeyValueHeads: 16,
      nSharedExperts: 2,
      nRoutedExperts: 64,
      numExpertsPerTok: 6,
      routedScalingFactor: 2.446,
      firstKDenseReplace: 1,
      kvLoraRank: 512,
      qLoraRank: null,
      qkNopeHeadDim: 128,
      qkRopeHeadDim: 64,
      vHeadDim: 128,
      maxPositionEmbeddings: 8192,
      ropeTheta: 50000,
      rmsNormEps: 1e-5,
      bosTokenId: 163584,
      eosTokenId: 163585,
    },
    "preset moonlight-16b-a3b",
  );
}

export const presets: Readonly<Record<string, () => ModelConfig>> = {
  unit,
  micro,
  nano,
  mini,
  shakespeare,
  "v2-lite-16b": v2Lite16b,
  "moonlight-16b-a3b": moonlight16bA3b,
  "v3-671b": v3671b,
};

/** @throws {ConfigError} naming the nearest preset */
export function presetConfig(name: string): ModelConfig {
  const make = Object.hasOwn(presets, name) ? presets[name] : undefined;
  if (make !== undefined) return make();
  const known = Object.keys(presets);
  const nearest = nearestName(name, known);
  throw new ConfigError(`there is no preset ${JSON.stringify(name)}`, {
    why: `the presets are ${known.join(", ")}`,
    fix: `use --preset ${nearest ?? "nano"}`,
    fields: { preset: name, nearest },
  });
}
