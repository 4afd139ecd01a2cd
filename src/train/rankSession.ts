/** What a run needs of a rank's share of the model, whether it is all of it or some stages. */
import type { DiskTensor } from "../checkpoint/index.ts";
import type {
  ExpertDispatch,
  ExpertShare,
  ParameterFactory,
  Precision,
  Transformer,
} from "../model/index.ts";
import type { Communicator, PipelinePlan } from "../parallel/index.ts";
import type { QueueDevice, RopeTable, Tensor } from "../tensor/index.ts";
import type { Rows } from "./batch.ts";
import type { TrainConfig } from "./config.ts";
import type { Optimizer } from "./optimizer.ts";
import type { ScheduledValues } from "./schedule.ts";
import type { StepRecord } from "./stepRecord.ts";

/** What the tokenizer says about ids. */
export interface TokenRoles {
  /** Stands in for padding. */
  readonly padId: number;
  /** Ends a document. */
  readonly eosId: number;
}

/** What is stored of a parameter: its exact numbers, or what its update keeps of it. */
export type StateKind = "master" | "moments";

/**
 * World ranks that are asked for a tensor: one for what lies in one piece, else one for each share of the experts, in
 * their order. Null where the first rank has it and asks nobody.
 */
export type Asked = readonly (number | null)[];

export interface Session {
  readonly device: QueueDevice;
  readonly config: TrainConfig;
  readonly precision: Precision;
  /** The whole model in its order: its numbers are there where `assemble` brings them. */
  readonly factory: ParameterFactory;
  readonly model: Transformer;
  /** What this rank trains, its gradients with it. */
  readonly heldFactories: readonly ParameterFactory[];
  readonly optimizer: Optimizer;
  readonly rope: RopeTable;
  /** Of the routed experts, those that this rank trains; null for all of its layers'. */
  readonly experts: ExpertShare | null;
  /** How tokens of `model` reach the experts of other ranks; null where this one has the whole of it. */
  readonly dispatch: ExpertDispatch | null;
  /** All ranks of the run; null for one alone. */
  readonly communicator: Communicator | null;
  /** The plan of a whole batch and this rank's number in it; null where every rank has all layers. */
  readonly pipeline: { readonly plan: PipelinePlan; readonly rank: number } | null;
  readonly runner: Runner;
  initialize(): void;
  askedFor(path: string, kind: StateKind): Asked;
  /** What this rank fills of a parameter's master from a checkpoint, or writes into one; null if nothing. */
  masterOf(path: string): Tensor | null;
  /** On all ranks at once: makes `model` on the first the model as it is now. */
  assemble(): void;
  /** Has a model's tensors read to where this rank holds them, and no others. */
  readFrom(read: ReadWeights): Promise<void>;
  /** After all of a checkpoint has been read. */
  settleRead(): void;
  dispose(): void;
}

/**
 * Reads the tensors of a whole model.
 *
 * @param factory  of the whole model: its names and shapes
 * @param place    the elements that a tensor fills on this rank, flat; null for one that it does not hold
 */
export type ReadWeights = (
  factory: ParameterFactory,
  place: (disk: DiskTensor) => Tensor | null,
) => Promise<void>;

/** Takes steps. */
export interface Runner {
  readonly parts: { readonly documentEnd: number | null; readonly padId: number };
  compute(rows: Rows, scheduled: ScheduledValues, wantsToStop?: boolean): Promise<StepRecord>;
  commit(scheduled: ScheduledValues): void;
  /** What the way back of a micro-batch finds in memory; 0 where chunks of several are in flight. */
  readonly cachedBytes: number;
  /** Of the partial sums of gradients that wait for their other half. */
  readonly treeBytes: number;
}

/** What a step takes from the run's config, whoever computes it. */
export interface StepSettings {
  /** Rows of the largest step. */
  readonly batchRows: number;
  readonly microBatchRows: number;
  readonly rowLength: number;
  readonly gradientShards: number;
  readonly recomputes: boolean;
  readonly balanceAlpha: number;
  readonly padId: number;
  readonly documentEnd: number | null;
}

export function stepSettings(config: TrainConfig, { padId, eosId }: TokenRoles): StepSettings {
  const { batchRows, microBatchRows, rowLength, gradientShards, recompute, balance, data } = config;
  return {
    batchRows,
    microBatchRows,
    rowLength,
    gradientShards,
    recomputes: recompute === "selective",
    balanceAlpha: balance.alpha,
    padId,
    documentEnd: data.maskDocuments ? eosId : null,
  };
}

export function disposeFactory({ parameters, buffers, tied, experts }: ParameterFactory): void {
  for (const { alias } of tied) alias.dispose("grad");
  for (const { bySender } of experts) for (const other of bySender.slice(1)) other.dispose("grad");
  for (const parameter of parameters) parameter.dispose();
  for (const { value } of buffers) value.dispose();
}
