export {
  eosTokenId,
  isMoeLayer,
  latentWidth,
  type ModelConfig,
  qkHeadDim,
  type YarnConfig,
} from "./config.ts";
export { modelConfigFromJson, modelConfigToJson } from "./configJson.ts";
export { modelConfigSchema, parseModelConfig } from "./configSchema.ts";
export { countParameters, type FlopCounts, type ParameterCounts, trainingFlopsPerToken } from "./counts.ts";
export type { Stream } from "./layer.ts";
export { type FactoryOptions, type ModelBuffer, ParameterFactory } from "./layers/factory.ts";
export type { LatentCache, Pass } from "./layers/pass.ts";
export { maxViolation, updateRouterBias } from "./moe/balance.ts";
export type { AskedRows, ExpertDispatch, TokensUnderWay } from "./moe/expertDispatch.ts";
export type { ExpertShare, ExpertWeights } from "./moe/expertWeights.ts";
export { Moe, type MoeReport } from "./moe/moe.ts";
export type { MtpOutput } from "./mtp.ts";
export {
  fp8Precision,
  type Precision,
  type PrecisionName,
  type ProjectionPart,
  precisions,
} from "./precision.ts";
export { presetConfig, presets } from "./presets.ts";
export { makeRopeTable } from "./rope.ts";
export { type Head, type LayerRange, Stage } from "./stage.ts";
export { type MainOutput, Transformer } from "./transformer.ts";
