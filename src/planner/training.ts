/**
 * One layout of a training run on paper: the pipeline is simulated with the costs of its chunks, memory and traffic
 * are counted, and what that means in days and money is worked out.
 */
import { countParameters, type ModelConfig, presetConfig, trainingFlopsPerToken } from "../model/index.ts";
import type { ChunkCosts, PipelinePlan, Simulation, SimulationCosts } from "../parallel/index.ts";
import { type RooflineChunks, rooflineChunks } from "./chunkCosts.ts";
import type { ChunkTimes } from "./cluster.ts";
import { layoutProblem, microBatchesOf, type StepSize, type TrainingLayout } from "./layout.ts";
import { memoryPerRank, type RankMemory } from "./memory.ts";
import { optimizerSeconds } from "./optimizerStep.ts";
import { rankParameters, type StageParameters, totalParameters } from "./parameters.ts";
import { pipelineTimer } from "./pipelineTimer.ts";
import { type Spread, spreads } from "./routing.ts";
import { type Throughput, type TrainingRun, throughput } from "./throughput.ts";

/** How a step's time was found: from measured chunk times, or from peaks, bytes and bandwidths. */
export type CostKind = "calibrated" | "roofline";

export interface StepTime extends Throughput {
  readonly costs: CostKind;
  readonly pipelineSeconds: number;
  readonly optimizerSeconds: number;
  readonly stepSeconds: number;
  /** By rank, without the optimizer step. */
  readonly bubbleSeconds: readonly number[];
  /** The slowest stage's. */
  readonly chunk: ChunkCosts;
}

export interface TrainingPlan {
  readonly layout: TrainingLayout;
  readonly size: StepSize;
  readonly microBatches: number;
  readonly microBatchTokens: number;
  /** Best founded first: calibrated where chunk times are known. */
  readonly times: readonly StepTime[];
  readonly memory: readonly RankMemory[];
  /** Most chunks whose activations a rank holds at once. */
  readonly peakChunks: number;
  readonly parametersPerRank: readonly number[];
  readonly roofline: RooflineChunks;
  readonly warnings: readonly string[];
  readonly pipeline: PipelinePlan;
  /** Of the first of `times`. */
  readonly simulation: Simulation;
}

export interface TrainingInputs extends TrainingRun {
  readonly layout: TrainingLayout;
  /** How many micro-batches for each pipeline rank are simulated; a longer step goes on as these end. All by default. */
  readonly simulatedPerRank?: number;
  /** By ep; counted anew unless given. A sweep counts once for each. */
  readonly spreadOf?: (ep: number) => Spread;
}

/** @throws {ConfigError} if the layout breaks a rule */
export function planTraining(inputs: TrainingInputs): TrainingPlan {
  const { config, cluster, layout, size } = inputs;
  const problem = layoutProblem(config, cluster, layout, size);
  if (problem !== null) throw problem;
  const microBatches = microBatchesOf(layout, size);
  const perRank = inputs.simulatedPerRank ?? Number.POSITIVE_INFINITY;
  const { pipeline, simulated: timed } = pipelineTimer(layout, microBatches, perRank);
  const spread = (inputs.spreadOf ?? spreads(config, cluster))(layout.ep);
  const roofline = rooflineChunks(config, cluster, layout, size, spread);
  const simulated = timed({ chunks: roofline.chunks, latency: roofline.handover });
  const { stages } = roofline;
  const parameters = pipeline.stagesOf.map((own) =>
    rankParameters(
      config,
      own.map((stage) => stages[stage]!),
      layout.ep,
    ),
  );
  const optimizer = slowestOptimizer(inputs, parameters);
  const plain = stepTime(inputs, "roofline", simulated, optimizer, roofline.chunks);
  const calibrated = calibratedTime(inputs, roofline, optimizer, timed);
  const memory = memoryPerRank({ config, layout, size, stages, spread, plan: pipeline });
  return {
    layout,
    size,
    microBatches,
    microBatchTokens: layout.microBatchRows * size.rowLength,
    times: calibrated === null ? [plain] : [calibrated.time, plain],
    memory,
    peakChunks: Math.max(...simulated.peakChunks),
    parametersPerRank: parameters.map(totalParameters),
    roofline,
    warnings: warningsOf(inputs, memory),
    pipeline,
    simulation: calibrated?.simulation ?? simulated,
  };
}

function slowestOptimizer(
  { cluster, layout, size }: TrainingInputs,
  parameters: readonly StageParameters[],
): number {
  return Math.max(...parameters.map((own) => optimizerSeconds(own, cluster, layout, size)));
}

/** Null where nobody measured chunks on this cluster. */
function calibratedTime(
  inputs: TrainingInputs,
  { stages }: RooflineChunks,
  optimizer: number,
  timed: (costs: SimulationCosts) => Simulation,
): { time: StepTime; simulation: Simulation } | null {
  const measured = inputs.cluster.chunkTimes;
  if (measured === null || inputs.size.precision !== "fp8") return null;
  const scale = chunkScale(inputs, measured, stages.length);
  // Measured times are means over the stages, so every stage gets the mean.
  const chunks: ChunkCosts = {
    forward: measured.forward * scale,
    backward: measured.backward * scale,
    weight: measured.weight * scale,
    overlapped: measured.overlapped * scale,
  };
  const simulation = timed({ chunks });
  // Chunks scale by FLOPs, the optimizer's step by weights and ranks: it was measured for one model and number of stages.
  const isMeasured =
    inputs.layout.pp === measured.pp && isSameModel(inputs.config, presetConfig(measured.model));
  const update = isMeasured ? measured.optimizer : optimizer;
  return { time: stepTime(inputs, "calibrated", simulation, update, [chunks]), simulation };
}

function isSameModel(one: ModelConfig, other: ModelConfig): boolean {
  return countParameters(one).main === countParameters(other).main;
}

/** Model FLOPs of this plan's mean chunk over those of the chunk that was measured. */
function chunkScale({ config, layout, size }: TrainingInputs, measured: ChunkTimes, stages: number): number {
  const perToken = trainingFlopsPerToken(config, size.rowLength).total;
  const reference = trainingFlopsPerToken(presetConfig(measured.model), measured.rowLength).total;
  const tokens = layout.microBatchRows * size.rowLength;
  return (perToken * tokens) / stages / ((reference * measured.microBatchTokens) / measured.pp);
}

function stepTime(
  inputs: TrainingInputs,
  costs: CostKind,
  { makespan, bubbles }: Simulation,
  optimizer: number,
  chunks: readonly ChunkCosts[],
): StepTime {
  const stepSeconds = makespan + optimizer;
  return {
    costs,
    pipelineSeconds: makespan,
    optimizerSeconds: optimizer,
    stepSeconds,
    ...throughput(inputs, stepSeconds),
    // A sum of many durations misses the makespan by its last bits.
    bubbleSeconds: bubbles.map((bubble) => (bubble < 1e-9 * makespan ? 0 : bubble)),
    chunk: chunks.reduce((slowest, one) => (one.overlapped > slowest.overlapped ? one : slowest)),
  };
}

function warningsOf({ cluster, layout, size }: TrainingInputs, memory: readonly RankMemory[]): string[] {
  const { device } = cluster;
  const worst = memory.reduce((most, rank) => (rank.total > most.total ? rank : most));
  const gib = (bytes: number): string => `${(bytes / 1024 ** 3).toFixed(1)} GiB`;
  const warnings: string[] = [];
  if (worst.total > device.memoryBytes) {
    const ranks = memory.filter(({ total }) => total > device.memoryBytes).length;
    const need = `rank ${worst.rank} needs ${gib(worst.total)} of ${gib(device.memoryBytes)}`;
    warnings.push(`does not fit: ${need}; ${ranks} of ${memory.length} pipeline ranks are too large`);
  } else if (worst.total > 0.95 * device.memoryBytes) {
    warnings.push(
      `fits with less than 5 % to spare: rank ${worst.rank} needs ${gib(worst.total)} of ${gib(device.memoryBytes)}`,
    );
  }
  if (layout.ep === 1 && layout.dp > 1) {
    warnings.push("ep is 1: every data-parallel rank holds all experts of its stages");
  }
  if (cluster.chunkTimes !== null && size.precision !== "fp8") {
    warnings.push(`not calibrated: the cluster's chunk times are of FP8, this plan is in ${size.precision}`);
  }
  return warnings;
}
