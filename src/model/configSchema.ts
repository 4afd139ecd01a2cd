/**
 * What a ModelConfig must obey: kinds of values, defaults as Hugging Face has them, rules between keys.
 *
 * Unknown scoring functions, top-k methods and RoPE kinds are refused: a model that routes by another rule
 * would load and be wrong.
 */
import { z } from "zod";
import { parseConfig } from "../base/index.ts";
import type { ModelConfig } from "./config.ts";

const count: z.ZodNumber = z.int().positive();
const countOrZero: z.ZodNumber = z.int().nonnegative();

const yarnSchema = z.object({
  type: z.literal("yarn"),
  factor: z.number().positive(),
  originalMaxPositionEmbeddings: count,
  betaFast: z.number().positive().default(32),
  betaSlow: z.number().positive().default(1),
  mscale: z.number().nonnegative().default(0),
  mscaleAllDim: z.number().nonnegative().default(0),
  attentionFactor: z.number().positive().optional(),
});

const fp8Schema = z.object({
  quantMethod: z.literal("fp8"),
  fmt: z.literal("e4m3").default("e4m3"),
  activationScheme: z.literal("dynamic"),
  // Other blocks would be read with scales that belong elsewhere: a model that runs and is wrong.
  weightBlockSize: z.tuple([z.literal(128), z.literal(128)]),
  scaleFmt: z.enum(["ue8m0", "float"]).optional(),
});

const shape = {
  architectures: z.array(z.string()).default(["DeepseekV3ForCausalLM"]),
  modelType: z.enum(["deepseek_v3", "deepseek_v2", "kimi_k2"]).default("deepseek_v3"),
  vocabSize: count,
  hiddenSize: count,
  intermediateSize: count,
  moeIntermediateSize: count,
  numHiddenLayers: count,
  numNextnPredictLayers: countOrZero.default(0),
  numAttentionHeads: count,
  numKeyValueHeads: count.optional(),
  nSharedExperts: countOrZero.default(1),
  nRoutedExperts: count,
  numExpertsPerTok: count,
  routedScalingFactor: z.number().positive(),
  nGroup: count.default(1),
  topkGroup: count.default(1),
  normTopkProb: z.boolean().default(true),
  scoringFunc: z.enum(["sigmoid", "softmax"]).default("sigmoid"),
  topkMethod: z.enum(["noaux_tc", "greedy", "group_limited_greedy"]).default("noaux_tc"),
  moeLayerFreq: z.literal(1).default(1),
  firstKDenseReplace: countOrZero,
  seqAux: z.boolean().default(true),
  auxLossAlpha: z.number().nonnegative().optional(),
  kvLoraRank: count,
  qLoraRank: count.nullable(),
  qkNopeHeadDim: count,
  qkRopeHeadDim: count,
  vHeadDim: count,
  maxPositionEmbeddings: count,
  ropeTheta: z.number().positive().default(10000),
  ropeScaling: yarnSchema.nullable().default(null),
  ropeInterleave: z.literal(true).default(true),
  attentionBias: z.literal(false).default(false),
  attentionDropout: z.literal(0).default(0),
  hiddenAct: z.literal("silu").default("silu"),
  rmsNormEps: z.number().positive().default(1e-6),
  latentNormEps: z.number().positive().default(1e-6),
  initializerRange: z.number().positive().default(0.02),
  tieWordEmbeddings: z.literal(false).default(false),
  bosTokenId: countOrZero.nullable().default(0),
  eosTokenId: z.union([countOrZero, z.array(countOrZero)]).default(1),
  padTokenId: countOrZero.nullable().default(null),
  torchDtype: z.enum(["float32", "bfloat16", "float16"]).default("bfloat16"),
  mtpHidden: z.enum(["pre_norm", "post_norm"]).default("pre_norm"),
  quantizationConfig: fp8Schema.nullable().default(null),
  useCache: z.boolean().default(true),
  pretrainingTp: z.number().optional(),
  epSize: z.number().optional(),
  autoMap: z.record(z.string(), z.unknown()).optional(),
  transformersVersion: z.string().optional(),
  headDim: z.number().optional(),
};

const failure = (
  path: keyof ModelConfig,
  error: string,
  fix: string,
): z.core.$ZodCustomParams & { path: string[] } => ({
  path: [path],
  error,
  params: { fix },
});

/** The schema with the rules that tie keys together. */
export const modelConfigSchema: z.ZodType<ModelConfig> = z
  .object(shape)
  .refine(
    (c) => c.nRoutedExperts % c.nGroup === 0,
    failure(
      "nGroup",
      "experts are split evenly over the groups",
      "choose an nGroup that divides nRoutedExperts",
    ),
  )
  .refine(
    (c) => c.topkGroup <= c.nGroup,
    failure("topkGroup", "a token cannot use more groups than there are", "set topkGroup to at most nGroup"),
  )
  .refine(
    (c) => c.nGroup === 1 || c.nRoutedExperts / c.nGroup >= 2,
    failure("nGroup", "a group is scored by its two best experts", "use fewer groups or more experts"),
  )
  .refine(
    (c) => c.numExpertsPerTok <= c.topkGroup * (c.nRoutedExperts / c.nGroup),
    failure(
      "numExpertsPerTok",
      "the groups that a token may use hold fewer experts than it must choose",
      "lower numExpertsPerTok or raise topkGroup",
    ),
  )
  .refine(
    (c) => c.firstKDenseReplace <= c.numHiddenLayers,
    failure("firstKDenseReplace", "there are not so many layers", "set it to at most numHiddenLayers"),
  )
  .refine(
    (c) => c.qkRopeHeadDim % 2 === 0,
    failure("qkRopeHeadDim", "rotary channels come in pairs", "use an even number"),
  )
  .refine(
    (c) => c.numKeyValueHeads === undefined || c.numKeyValueHeads === c.numAttentionHeads,
    failure(
      "numKeyValueHeads",
      "in MLA every head has its own keys and values",
      "set it to numAttentionHeads or leave it out",
    ),
  ) as z.ZodType<ModelConfig>;

/** Parses a complete or partial config in camelCase. */
export function parseModelConfig(value: unknown, where: string): ModelConfig {
  return parseConfig(modelConfigSchema, value, where);
}
