/**
 * Bytes of one device, by who owns them.
 *
 * The rules are the report's (sections 3.2.3, 3.3.2, 3.3.3): f32 masters and gradients, BF16 moments, ZeRO-1 over data-parallel
 * ranks; RMSNorm, MLA up-projections and SwiGLU recomputed; FP8 activations for the gradients of weights, E5M6 before
 * the output projection. The parameters' average lies in host memory.
 */
import { type ModelConfig, qkHeadDim } from "../model/index.ts";
import type { Action, Chunk, PipelinePlan } from "../parallel/index.ts";
import { replicasOf, type StepSize, type TrainingLayout } from "./layout.ts";
import { rankParameters, type StageParameters } from "./parameters.ts";
import type { Spread } from "./routing.ts";
import type { Stage } from "./stages.ts";
import { tokenBytes } from "./traffic.ts";

export interface RankMemory {
  readonly rank: number;
  /** FP8 with block scales, or BF16. */
  readonly weights: number;
  /** f32, of all parameters on the device. */
  readonly gradients: number;
  /** f32 master weights, this device's shard. */
  readonly masters: number;
  /** BF16, both moments, this device's shard. */
  readonly moments: number;
  /** Kept for backward, at the worst moment of the schedule. */
  readonly activations: number;
  /** What one layer or the head holds only while it runs. */
  readonly workspace: number;
  /** Send and receive buffers of the all-to-all and of the pipeline. */
  readonly buffers: number;
  readonly total: number;
}

export interface MemoryInputs {
  readonly config: ModelConfig;
  readonly layout: TrainingLayout;
  readonly size: StepSize;
  readonly stages: readonly Stage[];
  readonly spread: Spread;
  readonly plan: PipelinePlan;
}

/** Of every pipeline rank. */
export function memoryPerRank(inputs: MemoryInputs): readonly RankMemory[] {
  const perStage = inputs.stages.map((stage) => chunkActivationBytes(inputs, stage));
  return inputs.plan.stagesOf.map((own, rank) => {
    const stages = own.map((stage) => inputs.stages[stage]!);
    const parameters = rankParameters(inputs.config, stages, inputs.layout.ep);
    const bytes = own.map((stage) => perStage[stage]!);
    const activations = peakActivations(inputs.plan.actions[rank]!, bytes);
    const rest = {
      ...parameterBytes(parameters, inputs),
      activations,
      workspace: workspaceBytes(inputs, stages),
      buffers: bufferBytes(inputs, stages),
    };
    const total = Object.values(rest).reduce((sum, part) => sum + part, 0);
    return { rank, ...rest, total };
  });
}

function parameterBytes(
  { replicatedLinear, replicatedOther, experts }: StageParameters,
  { layout, size }: MemoryInputs,
): Pick<RankMemory, "weights" | "gradients" | "masters" | "moments"> {
  const linear = replicatedLinear + experts;
  const linearBytes = size.precision === "fp8" ? 1 + 4 / (128 * 128) : 2;
  const replicas = replicasOf(layout);
  const shard = (replicatedLinear + replicatedOther) / replicas + experts / (replicas / layout.ep);
  return {
    weights: linear * linearBytes + 2 * replicatedOther,
    gradients: 4 * (linear + replicatedOther),
    masters: 4 * shard,
    moments: 4 * shard,
  };
}

/** What one micro-batch leaves in a stage for its backward. */
export function chunkActivationBytes({ config, layout, size }: MemoryInputs, stage: Stage): number {
  const { hiddenSize: D, numAttentionHeads: H, vHeadDim, kvLoraRank: C, qkRopeHeadDim: R } = config;
  const isFp8 = size.precision === "fp8";
  const tokens = layout.microBatchRows * size.rowLength;
  // One f32 scale per 128 channels.
  const kept = isFp8 ? 1 + 4 / 128 : 2;
  const outputs = H * vHeadDim;
  // Input of the first norm; latents before their norms; the rotary key; output of attention in 12 bits; its log-sums.
  const attention =
    2 * D + 2 * ((config.qLoraRank ?? 0) + C + R) + outputs * (isFp8 ? 1.5 + 4 / 128 : 2) + 4 * H;
  const dense = 2 * D + 2 * config.intermediateSize * kept;
  // Input of the second norm; a row and its gate and up for each expert; router scores.
  const rows = config.numExpertsPerTok;
  const expertInner = 2 * config.moeIntermediateSize * kept;
  const moe =
    2 * D + rows * D * kept + (rows + config.nSharedExperts) * expertInner + 4 * config.nRoutedExperts;
  // The final norm's input and, for MTP, the projection's two.
  const tail = (stage.hasHead ? 2 * D : 0) + stage.mtpModules * 3 * 2 * D;
  const { denseLayers, moeLayers } = stage;
  return tokens * (denseLayers * (attention + dense) + moeLayers * (attention + moe) + tail);
}

/** The most that a rank's chunks keep at once, walking through its actions. */
export function peakActivations(actions: readonly Action[], bytesOfModule: readonly number[]): number {
  const bytes = ({ module }: Chunk): number => bytesOfModule[module] ?? 0;
  let held = 0;
  let most = 0;
  for (const action of actions) {
    if (action.kind === "forward") held += bytes(action.chunk);
    if (action.kind === "overlapped") held += bytes(action.forward);
    most = Math.max(most, held);
    if (action.kind === "backward" || action.kind === "backwardWeight") held -= bytes(action.chunk);
    if (action.kind === "overlapped") held -= bytes(action.backward);
  }
  return most;
}

/** The largest thing that runs: a layer's queries, keys and values with their gradients, or logits with theirs. */
function workspaceBytes({ config, layout, size }: MemoryInputs, stages: readonly Stage[]): number {
  const { numAttentionHeads: H, vHeadDim } = config;
  const tokens = layout.microBatchRows * size.rowLength;
  const attention = 2 * 2 * H * (2 * qkHeadDim(config) + 2 * vHeadDim);
  const experts = 2 * 2 * config.numExpertsPerTok * (2 * config.moeIntermediateSize + config.hiddenSize);
  const head = stages.some((stage) => stage.hasHead) ? (2 + 2) * config.vocabSize : 0;
  return tokens * Math.max(attention, experts, head);
}

/** Two micro-batches under way, each with what it receives in dispatch and sends in combine; handovers both ways. */
function bufferBytes(inputs: MemoryInputs, stages: readonly Stage[]): number {
  const { config, layout, size, spread } = inputs;
  const tokens = layout.microBatchRows * size.rowLength;
  const { dispatch, combine } = tokenBytes(config, size.precision);
  const hasExchange = layout.ep > 1 && stages.some((stage) => stage.moeLayers > 0);
  const exchange = hasExchange ? 2 * spread.devices * (dispatch + combine) : 0;
  const handover = layout.pp > 1 ? 4 * 2 * config.hiddenSize : 0;
  return tokens * (exchange + handover);
}
