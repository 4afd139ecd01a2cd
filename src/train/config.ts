/**
 * TrainConfig: everything a run depends on, in one frozen object, printed at its start and stored with it.
 *
 * Points in time are fractions of the token budget, so that a five-minute run and a long one follow the same
 * curve. Defaults are the report's (section 4.2), scaled as docs/training.md explains.
 */
import type { ModelConfig } from "../model/index.ts";
import type { Fp8Recipe } from "../tensor/index.ts";

export interface OptimizerConfig {
  /** Of the hidden matrices; embedding, head and norms take AdamW in both cases. */
  readonly kind: "adamw" | "muon";
  /** Peak learning rate. */
  readonly learningRate: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  /** On matrices only: norms and the router bias do not decay. */
  readonly weightDecay: number;
  /** Largest global gradient norm. */
  readonly clipNorm: number;
  /** Of Muon. */
  readonly momentum: number;
  /** dtype of AdamW's two moments and of Muon's momentum. */
  readonly moments: "f32" | "bf16";
  /** Decay of the running average of the weights; null keeps none. */
  readonly emaDecay: number | null;
}

export interface ScheduleConfig {
  readonly warmupSteps: number;
  /** Fractions of the budget at which the learning rate leaves its plateau, ends its cosine, and drops once more. */
  readonly cosineFrom: number;
  readonly cosineUntil: number;
  readonly lastFrom: number;
  /** Learning rates after the cosine and at the end, as shares of the peak. */
  readonly floor: number;
  readonly last: number;
  /** The batch grows from `rampStart` of its size to the whole until `rampUntil`; 1 switches the ramp off. */
  readonly rampStart: number;
  readonly rampUntil: number;
}

export interface BalanceConfig {
  /** Step of the router bias; from `gammaUntil` of the budget it is 0. */
  readonly gamma: number;
  readonly gammaUntil: number;
  /** Weight of the sequence-wise balance loss. */
  readonly alpha: number;
}

export interface MtpConfig {
  readonly weight: number;
  readonly finalWeight: number;
  readonly switchAt: number;
}

export interface DataConfig {
  readonly paths: readonly string[];
  /** A trained tokenizer's file or folder; null trains one; "bytes" uses bytes as tokens. */
  readonly tokenizer: string | null;
  /** Every n-th document is held out; 0 holds out none. */
  readonly validationEvery: number;
  readonly fimRate: number;
  /** Share of tokens that fuse punctuation with line breaks and are split at random. */
  readonly splitRate: number;
  /** Attention stops at document boundaries inside a row, and MTP targets beyond them are left out. */
  readonly maskDocuments: boolean;
}

export interface EvaluateConfig {
  readonly everySteps: number;
  /** Rows of the held-out split per evaluation while training. */
  readonly rows: number;
  /** Rows of the evaluation after the last step; null takes all. */
  readonly lastRows: number | null;
}

export interface SampleConfig {
  readonly everySteps: number;
  readonly prompts: readonly string[];
  readonly maxTokens: number;
}

export interface CheckpointConfig {
  readonly everySteps: number;
  readonly keepNewest: number;
  /** Also keeps every checkpoint whose step is a multiple of this; 0 keeps none. */
  readonly keepEvery: number;
  readonly keepBest: boolean;
}

export interface TrainConfig {
  readonly preset: string;
  readonly model: ModelConfig;
  readonly precision: "f32" | "bf16" | "fp8";
  /** The report's recipe unless precision is fp8. */
  readonly fp8: Fp8Recipe;
  readonly seed: number;
  /** Tokens in a row. */
  readonly rowLength: number;
  readonly steps: number;
  /** Rows in a full batch. */
  readonly batchRows: number;
  readonly microBatchRows: number;
  /** Blocks of micro-batches whose gradients are summed by a fixed tree; equal numbers give equal bits. */
  readonly gradientShards: number;
  /**
   * What the backward pass computes again instead of keeping: nothing, or what the report names (norms, MLA's
   * up-projections, SwiGLU) and every second sum of the residual stream. The bits are the same.
   */
  readonly recompute: "none" | "selective";
  readonly optimizer: OptimizerConfig;
  readonly schedule: ScheduleConfig;
  readonly balance: BalanceConfig;
  readonly mtp: MtpConfig;
  readonly data: DataConfig;
  readonly evaluate: EvaluateConfig;
  readonly sample: SampleConfig;
  readonly checkpoint: CheckpointConfig;
}
