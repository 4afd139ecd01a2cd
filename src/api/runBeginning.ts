/** What a run tells before its first step: the machine and its ranks, the model, the memory that it will take. */
import { cpus, totalmem } from "node:os";
import type { Environment, JsonObject, RunEventBody } from "../base/index.ts";
import { countParameters, trainingFlopsPerToken } from "../model/index.ts";
import { layoutText } from "../parallel/index.ts";
import {
  besideBf16,
  estimateStep,
  plannedRows,
  type Seat,
  type StepEstimate,
  type TrainConfig,
} from "../train/index.ts";
import { isLaunched, type Launch, type OpenRank } from "./openRanks.ts";
import type { StartedRun } from "./startRun.ts";
import { version } from "./version.ts";

/** A rank's place; null without ranks. */
function seatOf(launch: Launch | null, rank: number): Seat | null {
  return launch === null ? null : { layout: launch.layout, rank, ranksPerNode: launch.ranksPerNode };
}

/**
 * What each rank will take, planned once for all that is said of it; of the one where there are no ranks. Every rank is
 * planned: ownership of whole weights is even only nearly.
 */
export async function planMemory(
  { config, launch }: Pick<StartedRun, "config" | "launch">,
  estimate: typeof estimateStep = estimateStep,
): Promise<readonly StepEstimate[]> {
  const planned: StepEstimate[] = [];
  for (let rank = 0; rank < (launch?.ranks ?? 1); rank++)
    planned.push(await estimate(config, seatOf(launch, rank)));
  return planned;
}

/** What is told of a run when it begins. */
type BegunRun = Pick<StartedRun, "config" | "launch" | "bytesBeforeTensors"> & {
  readonly folder: { readonly manifest: Pick<StartedRun["folder"]["manifest"], "runId"> };
};

/** @param planned  of every rank */
export async function startedEvent(
  { folder, config, launch, bytesBeforeTensors }: BegunRun,
  environment: Environment,
  planned: readonly StepEstimate[],
  command: readonly string[],
): Promise<Extract<RunEventBody, { type: "run.started" }>> {
  const estimate = planned[0]!;
  // A launcher gives every rank a process of its own.
  const inThisProcess = isLaunched() ? [estimate] : planned;
  const tensorBytes = inThisProcess.reduce((sum, { nativeBytes }) => sum + nativeBytes, 0);
  const beside = await besideBf16(config, estimate, seatOf(launch, 0));
  const { main, mtpModule, active } = countParameters(config.model);
  return {
    type: "run.started",
    runId: folder.manifest.runId,
    version,
    command,
    config: config as unknown as JsonObject,
    environment,
    model: {
      numParameters: main + config.model.numNextnPredictLayers * mtpModule,
      numActiveParameters: active.all,
      trainFlopsPerToken: trainingFlopsPerToken(config.model, config.rowLength).total,
      numHiddenLayers: config.model.numHiddenLayers,
      mtpDepth: config.model.numNextnPredictLayers,
      nRoutedExperts: config.model.nRoutedExperts,
    },
    memory: {
      nativeBytes: estimate.nativeBytes,
      rssBytes: bytesBeforeTensors + tensorBytes,
      parts: estimate.parts,
      ...(beside.length === 0 ? {} : { besideBf16: beside }),
    },
    ...plan(config),
  };
}

export function plan(config: TrainConfig): { readonly plannedSteps: number; readonly plannedTokens: number } {
  return { plannedSteps: config.steps, plannedTokens: plannedRows(config) * config.rowLength };
}

/** Seconds of the register-peak probe: long enough for the clock to settle. */
const PEAK_SECONDS = 0.1;

/** @param planned  of every rank */
export async function describeMachine(
  { native, threads }: OpenRank,
  { config, launch }: Pick<StartedRun, "config" | "launch">,
  planned: readonly StepEstimate[],
): Promise<Environment> {
  return {
    node: process.versions.node,
    platform: process.platform,
    arch: process.arch,
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    numCores: cpus().length,
    numThreads: threads,
    memoryBytes: totalmem(),
    backend: native === null ? "reference" : "native",
    kernels: native?.isa ?? null,
    precision: config.precision,
    // FP8 is multiplied in bf16 registers.
    peakFlopsPerSecond:
      native === null ? null : await native.peak(config.precision === "f32" ? "f32" : "bf16", PEAK_SECONDS),
    ...(launch === null ? {} : { ranks: describeRanks(launch, planned) }),
  };
}

function describeRanks(
  { layout }: Launch,
  planned: readonly StepEstimate[],
): NonNullable<Environment["ranks"]> {
  const tensorBytes = planned.map(({ nativeBytes }) => nativeBytes);
  return { layout: layoutText(layout), zero1: layout.zero1, tensorBytes };
}
