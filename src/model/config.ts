/**
 * ModelConfig: the released `config.json`, key for key, in camelCase. One vocabulary for everything.
 *
 * The rules that tie keys together are in ./configSchema.ts, reading and writing the file in ./configJson.ts.
 */

/** YaRN: how frequencies stretch beyond the trained context. */
export interface YarnConfig {
  readonly type: "yarn";
  readonly factor: number;
  readonly originalMaxPositionEmbeddings: number;
  readonly betaFast: number;
  readonly betaSlow: number;
  /** 0 means absent. */
  readonly mscale: number;
  readonly mscaleAllDim: number;
  readonly attentionFactor?: number | undefined;
}

export interface Fp8Config {
  readonly quantMethod: "fp8";
  readonly fmt: "e4m3";
  readonly activationScheme: "dynamic";
  readonly weightBlockSize: readonly [number, number];
  readonly scaleFmt?: "ue8m0" | "float" | undefined;
}

export interface ModelConfig {
  readonly architectures: readonly string[];
  readonly modelType: "deepseek_v3" | "deepseek_v2" | "kimi_k2";
  readonly vocabSize: number;
  readonly hiddenSize: number;
  /** Width of a dense layer's feed-forward network. */
  readonly intermediateSize: number;
  /** Width of one expert. */
  readonly moeIntermediateSize: number;
  /** Main layers; MTP modules come on top. */
  readonly numHiddenLayers: number;
  readonly numNextnPredictLayers: number;
  readonly numAttentionHeads: number;
  readonly numKeyValueHeads?: number | undefined;
  readonly nSharedExperts: number;
  readonly nRoutedExperts: number;
  readonly numExpertsPerTok: number;
  readonly routedScalingFactor: number;
  readonly nGroup: number;
  readonly topkGroup: number;
  readonly normTopkProb: boolean;
  readonly scoringFunc: "sigmoid" | "softmax";
  readonly topkMethod: "noaux_tc" | "greedy" | "group_limited_greedy";
  readonly moeLayerFreq: 1;
  /** Layers before this index are dense. */
  readonly firstKDenseReplace: number;
  readonly seqAux: boolean;
  readonly auxLossAlpha?: number | undefined;
  readonly kvLoraRank: number;
  /** Null: queries are not compressed and have one projection. */
  readonly qLoraRank: number | null;
  readonly qkNopeHeadDim: number;
  readonly qkRopeHeadDim: number;
  readonly vHeadDim: number;
  readonly maxPositionEmbeddings: number;
  readonly ropeTheta: number;
  readonly ropeScaling: YarnConfig | null;
  /** Rotary channels lie in pairs (2j, 2j+1), as in every published V3 checkpoint. */
  readonly ropeInterleave: true;
  readonly attentionBias: false;
  readonly attentionDropout: 0;
  readonly hiddenAct: "silu";
  readonly rmsNormEps: number;
  /** Of the norms on the query and key/value latents, which Hugging Face fixes whatever rmsNormEps says. */
  readonly latentNormEps: number;
  readonly initializerRange: number;
  readonly tieWordEmbeddings: false;
  readonly bosTokenId: number | null;
  readonly eosTokenId: number | readonly number[];
  readonly padTokenId: number | null;
  readonly torchDtype: "float32" | "bfloat16" | "float16";
  /** What an MTP module reads: the last layer's output before or after the main model's final norm. */
  readonly mtpHidden: "pre_norm" | "post_norm";
  readonly quantizationConfig: Fp8Config | null;
  readonly useCache: boolean;
  readonly pretrainingTp?: number | undefined;
  readonly epSize?: number | undefined;
  readonly autoMap?: Readonly<Record<string, unknown>> | undefined;
  readonly transformersVersion?: string | undefined;
  readonly headDim?: number | undefined;
}

/** Layer `index` has experts instead of one dense feed-forward network. MTP layers always have. */
export function isMoeLayer(config: ModelConfig, index: number): boolean {
  return index >= config.firstKDenseReplace;
}

/** Channels of one query or key head: without position, then rotary. */
export function qkHeadDim(config: ModelConfig): number {
  return config.qkNopeHeadDim + config.qkRopeHeadDim;
}

/** Numbers cached per token and layer: the latent and the one rotary key. */
export function latentWidth(config: ModelConfig): number {
  return config.kvLoraRank + config.qkRopeHeadDim;
}

/** The first id that ends a text. */
export function eosTokenId(config: ModelConfig): number {
  const { eosTokenId: eos } = config;
  return typeof eos === "number" ? eos : (eos[0] ?? 1);
}
