/**
 * Everything that happens in a run, as typed events.
 *
 * Terminal, events.jsonl, TensorBoard, the index and the report are readers of these and compute nothing of their
 * own. An event is plain JSON. Every number is finite: what may be NaN or infinite is typed `number | null`, and
 * null says that it was not finite. Losses are nats per token, mean. `docs/run.md` tells the same to the users.
 */
import type { JsonObject } from "./json.ts";

/** Version of the events' form. A field may be added under the same version, never change its sense. */
export const eventSchema = 1;

/** What is put on every event by `stampEvent`. */
export interface EventStamp {
  readonly schema: typeof eventSchema;
  /** ISO 8601, UTC, milliseconds. */
  readonly time: string;
}

export type RunEventBody =
  | RunStarted
  | RunResumed
  | DataPrepared
  | TokenizerTrained
  | BaselinesMeasured
  | StepCompleted
  | StepSkipped
  | RouterBias
  | EvaluationCompleted
  | SampleGenerated
  | CheckpointWritten
  | CheckpointRemoved
  | CheckpointDamaged
  | RunPhase
  | RunWarning
  | RunInterrupted
  | RunCompleted
  | RunFailed;

export type RunEvent = EventStamp & RunEventBody;
export type RunEventType = RunEventBody["type"];
export type EventOf<T extends RunEventType> = Extract<RunEvent, { readonly type: T }>;

/** The machine and the kernels that compute. */
export interface Environment {
  readonly node: string;
  readonly platform: string;
  readonly arch: string;
  readonly cpu: string;
  readonly numCores: number;
  readonly numThreads: number;
  readonly memoryBytes: number;
  /** `native` or `reference`. */
  readonly backend: string;
  /** The instruction set that the kernels use, `avx512-bf16` for example; null on the reference backend. */
  readonly kernels: string | null;
  readonly precision: string;
  /** Measured or computed FLOP/s of all threads that `shareOfPeak` refers to; null where it is not known. */
  readonly peakFlopsPerSecond: number | null;
  /** Absent where one rank computes alone. */
  readonly ranks?: RankSummary;
}

/** The ranks that share the work since the run was last started. */
export interface RankSummary {
  /** `dp=4,ep=1,pp=1` */
  readonly layout: string;
  /** Whether moments and averages of a weight lie at one rank only. */
  readonly zero1: boolean;
  /** What the tensors of each rank will take. */
  readonly tensorBytes: readonly number[];
}

export interface ModelSummary {
  readonly numParameters: number;
  /** Parameters that one token uses. */
  readonly numActiveParameters: number;
  /** Forward and backward, MTP included. */
  readonly trainFlopsPerToken: number;
  readonly numHiddenLayers: number;
  /** D: MTP modules stand as layers `numHiddenLayers` and up. */
  readonly mtpDepth: number;
  /** E; 0 for a dense model. */
  readonly nRoutedExperts: number;
}

/** What the run will need, told before it starts. */
export interface MemoryEstimate {
  /** Of the first rank's tensors, and so are its parts. */
  readonly nativeBytes: number;
  /** Of the whole process. */
  readonly rssBytes: number;
  /** Bytes by purpose: weights, gradients, moments, activations... */
  readonly parts: Readonly<Record<string, number>>;
  /** What takes fewer bytes in FP8, beside what it would take in bf16; absent in other precisions. */
  readonly besideBf16?: readonly {
    readonly name: string;
    readonly bytes: number;
    readonly bf16Bytes: number;
  }[];
}

export interface RunStarted {
  readonly type: "run.started";
  readonly runId: string;
  readonly version: string;
  /** As typed, without the interpreter. */
  readonly command: readonly string[];
  /** The whole config, model included. */
  readonly config: JsonObject;
  readonly environment: Environment;
  readonly model: ModelSummary;
  readonly memory: MemoryEstimate;
  readonly plannedSteps: number;
  readonly plannedTokens: number;
}

export interface RunResumed {
  readonly type: "run.resumed";
  readonly version: string;
  /** The run goes on after this step. */
  readonly step: number;
  readonly checkpoint: string;
  /** The whole config: settings may have changed since the run began. */
  readonly config: JsonObject;
  readonly plannedSteps: number;
  readonly plannedTokens: number;
  readonly environment: Environment;
  /** Steps that were done after the checkpoint and are done again; their events are in events.superseded.jsonl. */
  readonly repeatedSteps: number;
}

export interface SplitSize {
  readonly documents: number;
  readonly bytes: number;
  readonly tokens: number;
}

export interface DataPrepared {
  readonly type: "data.prepared";
  readonly source: string;
  readonly documents: number;
  readonly bytes: number;
  readonly tokens: number;
  readonly train: SplitSize;
  readonly validation: SplitSize;
  readonly vocabSize: number;
  readonly seconds: number;
}

export interface TokenizerTrained {
  readonly type: "tokenizer.trained";
  readonly vocabSize: number;
  readonly numMerges: number;
  /** Of the text that it was trained on. */
  readonly bytes: number;
  readonly bytesPerToken: number;
  readonly seconds: number;
}

export interface Baseline {
  /** `Kneser-Ney trigram over the same tokens`, `order-2 bytes`, `xz -9e`... */
  readonly name: string;
  readonly bitsPerByte: number;
}

/** What simple models and compressors make of the same validation text: the bars to beat. */
export interface BaselinesMeasured {
  readonly type: "baselines.measured";
  readonly split: string;
  readonly baselines: readonly Baseline[];
  readonly seconds: number;
}

/** Tokens that each expert of a layer received in one step. `layer` is the checkpoint's index, MTP layers last. */
export interface LayerLoad {
  readonly layer: number;
  readonly counts: readonly number[];
}

export interface StepCompleted {
  readonly type: "step.completed";
  readonly step: number;
  /** Training tokens since the run's first step, this step included. */
  readonly tokensSeen: number;
  /** mainLoss + mtpWeight / D * sum(mtpLosses) + balanceLoss: what is minimised. */
  readonly loss: number;
  readonly mainLoss: number;
  /** One per MTP depth; empty without MTP. */
  readonly mtpLosses: readonly number[];
  /** The sequence-wise balance loss, its factor alpha included. */
  readonly balanceLoss: number;
  /** Of `mainLoss`, by the training text's bytes per token. */
  readonly bitsPerByte: number;
  /** Before clipping. */
  readonly gradNorm: number;
  readonly learningRate: number;
  /** Step of the router bias. */
  readonly gamma: number;
  /** lambda: weight of the MTP losses. */
  readonly mtpWeight: number;
  readonly batchRows: number;
  readonly tokensPerSecond: number;
  /** 0 to 1 of `environment.peakFlopsPerSecond`; null where the peak is not known. */
  readonly shareOfPeak: number | null;
  readonly seconds: number;
  /** Empty for a dense model. */
  readonly expertLoad: readonly LayerLoad[];
  /** Largest over the layers of (most loaded expert / mean load) - 1; 0 for a dense model. */
  readonly maxViolation: number;
  readonly liveBytes: number;
  readonly rssBytes: number;
}

/** The step's gradients were thrown away; weights, moments and router bias stayed as they were. */
export interface StepSkipped {
  readonly type: "step.skipped";
  readonly step: number;
  readonly reason: "non-finite loss" | "non-finite gradient" | "loss spike" | "gradient spike";
  /** The parameter's path, where one tensor is to blame. */
  readonly tensor: string | null;
  readonly loss: number | null;
  readonly gradNorm: number | null;
}

export interface LayerBias {
  readonly layer: number;
  readonly bias: readonly number[];
}

/** The router biases after a step; sent every few steps, not at each. */
export interface RouterBias {
  readonly type: "router.bias";
  readonly step: number;
  readonly layers: readonly LayerBias[];
}

export interface EvaluationCompleted {
  readonly type: "evaluation.completed";
  readonly step: number;
  readonly split: "validation" | "train";
  readonly loss: number | null;
  readonly bitsPerByte: number | null;
  /** Share of positions whose next-next token the first MTP module ranks first; null without MTP. */
  readonly nextNextTokenAccuracy: number | null;
  readonly tokens: number;
  readonly seconds: number;
}

export interface SampleGenerated {
  readonly type: "sample.generated";
  readonly step: number;
  readonly prompt: string;
  /** What the model wrote after the prompt. */
  readonly text: string;
}

export interface CheckpointWritten {
  readonly type: "checkpoint.written";
  readonly step: number;
  /** Relative to the run folder. */
  readonly path: string;
  readonly bytes: number;
  readonly seconds: number;
  readonly reason: "scheduled" | "last" | "interrupted";
}

/** A checkpoint that the rule of what to keep has let go. */
export interface CheckpointRemoved {
  readonly type: "checkpoint.removed";
  readonly step: number;
  readonly path: string;
}

export interface CheckpointDamaged {
  readonly type: "checkpoint.damaged";
  readonly step: number;
  readonly path: string;
  readonly reason: string;
  /** The previous good checkpoint that is used instead; null if there is none. */
  readonly fallback: string | null;
}

/** A part of the run is over: `data`, `tokenizer`, `train`, `evaluate`... Phases of one name add up. */
export interface RunPhase {
  readonly type: "run.phase";
  readonly name: string;
  readonly seconds: number;
}

export interface RunWarning {
  readonly type: "run.warning";
  readonly what: string;
  readonly why: string;
  /** What to do about it; null if nothing has to be done. */
  readonly fix: string | null;
}

export interface RunInterrupted {
  readonly type: "run.interrupted";
  readonly step: number;
  readonly signal: string;
  readonly checkpoint: string | null;
  /** The command that goes on from here. */
  readonly resume: string;
}

export interface RunCompleted {
  readonly type: "run.completed";
  readonly step: number;
  readonly tokensSeen: number;
  /** Wall time of this process's part of the run. */
  readonly seconds: number;
}

/** An error as data. `code` is stable; `ERR_INTERNAL` marks what is our own bug. */
export interface ErrorRecord {
  readonly code: string;
  readonly name: string;
  readonly what: string;
  readonly why: string;
  readonly fix: string;
  /** Only for our own bugs, where it helps. */
  readonly stack: string | null;
}

export interface RunFailed {
  readonly type: "run.failed";
  /** The last completed step. */
  readonly step: number;
  readonly error: ErrorRecord;
}

export function stampEvent(body: RunEventBody, now: Date = new Date()): RunEvent {
  return { schema: eventSchema, time: now.toISOString(), ...body };
}
