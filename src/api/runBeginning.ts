/** What a run tells before its first step: the machine and its ranks, the model, the memory that it will take. */
import { cpus, totalmem } from "node:os";
import type { Environment, JsonObject, RunEventBody } from "../base/index.ts";
import { countParameters, trainingFlopsPerToken } from "../model/index.ts";
import { layoutText } from "../parallel/index.ts";
import { besideBf16, estimateStep, plannedRows, type TrainConfig } from "../train/index.ts";
import { isLaunched, type Launch, type OpenRank } from "./openRanks.ts";
import type { StartedRun } from "./startRun.ts";
import { version } from "./version.ts";

export async function startedEvent(
  { folder, config, launch, bytesBeforeTensors }: StartedRun,
  environment: Environment,
  command: readonly string[],
): Promise<RunEventBody> {
  const seat = launch === null ? null : { layout: launch.layout, rank: 0, ranksPerNode: launch.ranksPerNode };
  const estimate = await estimateStep(config, seat);
  // A launcher gives every rank a process of its own.
  const inOneProcess = isLaunched() ? [] : (environment.ranks?.tensorBytes ?? []);
  const tensorBytes =
    inOneProcess.length === 0 ? estimate.nativeBytes : inOneProcess.reduce((sum, bytes) => sum + bytes, 0);
  const beside = await besideBf16(config, estimate, seat);
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

export async function describeMachine(
  { native, threads }: OpenRank,
  { config, launch }: StartedRun,
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
    ...(launch === null ? {} : { ranks: await describeRanks(launch, config) }),
  };
}

/** Every rank's memory is planned: ownership of whole weights is even only nearly. */
async function describeRanks(
  { layout, ranks, ranksPerNode }: Launch,
  config: TrainConfig,
): Promise<NonNullable<Environment["ranks"]>> {
  const tensorBytes: number[] = [];
  for (let rank = 0; rank < ranks; rank++)
    tensorBytes.push((await estimateStep(config, { layout, rank, ranksPerNode })).nativeBytes);
  return { layout: layoutText(layout), zero1: layout.zero1, tensorBytes };
}
