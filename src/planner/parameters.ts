/** Parameters of a stage on one device: those that every data-parallel rank has, and its share of the routed experts. */
import { countParameters, type ModelConfig } from "../model/index.ts";
import type { Stage } from "./stages.ts";

export interface StageParameters {
  /** Projections, stored and multiplied in FP8 where precision is fp8. */
  readonly replicatedLinear: number;
  /** Embedding, head, router, norms: never FP8. */
  readonly replicatedOther: number;
  /** Routed experts on this device. */
  readonly experts: number;
}

export function stageParameters(config: ModelConfig, stage: Stage, ep: number): StageParameters {
  const counts = countParameters(config);
  const D = config.hiddenSize;
  const norms = latentNorms(config) + 2 * D;
  const { denseLayers, moeLayers, mtpModules } = stage;
  const layers = denseLayers + moeLayers;
  // The embedding is looked up at the head's stage too, where MTP reads it: one copy more, unless DualPipe shares it.
  const embeddings = (stage.hasEmbedding || mtpModules > 0 ? 1 : 0) * counts.embedding;
  const heads = stage.hasHead ? counts.head + D : 0;
  return {
    replicatedLinear:
      layers * (counts.mlaPerLayer - latentNorms(config)) +
      denseLayers * counts.denseMlp +
      moeLayers * config.nSharedExperts * counts.expert,
    replicatedOther:
      layers * norms + moeLayers * counts.router + mtpModules * (2 * D * D + 3 * D) + embeddings + heads,
    experts: (moeLayers * config.nRoutedExperts * counts.expert) / ep,
  };
}

/** All stages of a rank. One that has the first and the last holds one embedding for both: MTP shares it, gradients too. */
export function rankParameters(config: ModelConfig, stages: readonly Stage[], ep: number): StageParameters {
  const parts = stages.map((stage) => stageParameters(config, stage, ep));
  const sum = (of: (part: StageParameters) => number): number =>
    parts.reduce((total, part) => total + of(part), 0);
  const holders = stages.filter((stage) => stage.hasEmbedding || stage.mtpModules > 0).length;
  const copies = Math.max(0, holders - 1) * countParameters(config).embedding;
  return {
    replicatedLinear: sum((part) => part.replicatedLinear),
    replicatedOther: sum((part) => part.replicatedOther) - copies,
    experts: sum((part) => part.experts),
  };
}

export function totalParameters({ replicatedLinear, replicatedOther, experts }: StageParameters): number {
  return replicatedLinear + replicatedOther + experts;
}

function latentNorms({ qLoraRank, kvLoraRank }: ModelConfig): number {
  return (qLoraRank ?? 0) + kvLoraRank;
}
