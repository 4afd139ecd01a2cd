/** A run in one row. */
import type { JsonObject } from "../base/index.ts";
import type { RunHistory } from "./log/history.ts";

export type RunStatus =
  /** Still going, or its process was killed: only the lock of the folder can tell. */
  "open" | "interrupted" | "completed" | "failed";

/** A number is null where the run has not measured it. */
export interface RunSummary {
  readonly runId: string;
  readonly status: RunStatus;
  /** ISO 8601, UTC. */
  readonly started: string;
  readonly version: string;
  readonly step: number;
  readonly plannedSteps: number;
  readonly tokensSeen: number;
  readonly numParameters: number;
  /** Mean of `mainLoss` over the last 20 steps: one step alone is mostly noise. */
  readonly trainLoss: number | null;
  /** Of the last evaluation on the validation split. */
  readonly validationLoss: number | null;
  readonly bitsPerByte: number | null;
  readonly bestBitsPerByte: number | null;
  readonly nextNextTokenAccuracy: number | null;
  /** Medians over the steps: the first ones warm up and a checkpoint slows one down. */
  readonly tokensPerSecond: number | null;
  readonly shareOfPeak: number | null;
  /** Spent inside training steps. */
  readonly stepSeconds: number;
  readonly config: JsonObject;
}

/** @returns null for a history without `run.started`: nothing has begun */
export function summarize(history: RunHistory): RunSummary | null {
  // A run that is resumed before its first checkpoint starts again, perhaps with other settings.
  const started = history.lastOf("run.started");
  if (started === undefined) return null;
  const resumed = history.lastOf("run.resumed");
  const steps = history.of("step.completed");
  const evaluations = history.of("evaluation.completed").filter(({ split }) => split === "validation");
  const lastEvaluation = evaluations.at(-1);
  const bits = evaluations.map(({ bitsPerByte }) => bitsPerByte).filter((value) => value !== null);
  const shares = steps.map(({ shareOfPeak }) => shareOfPeak).filter((value) => value !== null);
  return {
    runId: started.runId,
    status: statusOf(history),
    started: started.time,
    version: started.version,
    step: steps.at(-1)?.step ?? 0,
    plannedSteps: resumed?.plannedSteps ?? started.plannedSteps,
    tokensSeen: steps.at(-1)?.tokensSeen ?? 0,
    numParameters: started.model.numParameters,
    trainLoss: mean(steps.slice(-20).map(({ mainLoss }) => mainLoss)),
    validationLoss: lastEvaluation?.loss ?? null,
    bitsPerByte: lastEvaluation?.bitsPerByte ?? null,
    bestBitsPerByte: bits.length === 0 ? null : bits.reduce((best, value) => Math.min(best, value)),
    nextNextTokenAccuracy: lastEvaluation?.nextNextTokenAccuracy ?? null,
    tokensPerSecond: median(steps.map(({ tokensPerSecond }) => tokensPerSecond)),
    shareOfPeak: median(shares),
    stepSeconds: steps.reduce((sum, { seconds }) => sum + seconds, 0),
    config: resumed?.config ?? started.config,
  };
}

/** The last word counts: a run that was resumed after an interruption is open again. */
function statusOf(history: RunHistory): RunStatus {
  const words = [
    { status: "open", event: history.lastOf("run.resumed") },
    { status: "interrupted", event: history.lastOf("run.interrupted") },
    { status: "failed", event: history.lastOf("run.failed") },
    { status: "completed", event: history.lastOf("run.completed") },
  ] as const;
  let newest: { readonly status: RunStatus; readonly time: string } = { status: "open", time: "" };
  for (const { status, event } of words) {
    if (event !== undefined && event.time > newest.time) newest = { status, time: event.time };
  }
  return newest.status;
}

export function mean(values: readonly number[]): number | null {
  return values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length;
}

export function median(values: readonly number[]): number | null {
  if (values.length === 0) return null;
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
