/**
 * Every quantity that changes over a run, as a pure function of where the run is.
 *
 * Source: DeepSeek-V3 report, section 4.2: learning rate in five segments (warm-up, plateau, cosine, two floors),
 * batch ramp, bias step gamma, MTP weight lambda. Token counts there are shares of the budget here.
 */
import type { TrainConfig } from "./config.ts";

/** Where a run is: steps done, skipped ones included, and the share of its tokens seen before the coming step. */
export interface Progress {
  readonly step: number;
  readonly share: number;
}

export interface ScheduledValues {
  readonly learningRate: number;
  readonly gamma: number;
  readonly mtpWeight: number;
  readonly batchRows: number;
}

export function scheduleAt(config: TrainConfig, progress: Progress): ScheduledValues {
  return {
    learningRate: learningRateAt(config, progress),
    gamma: progress.share < config.balance.gammaUntil ? config.balance.gamma : 0,
    mtpWeight: progress.share < config.mtp.switchAt ? config.mtp.weight : config.mtp.finalWeight,
    batchRows: batchRowsAt(config, progress.share),
  };
}

export function learningRateAt({ optimizer, schedule }: TrainConfig, { step, share }: Progress): number {
  const peak = optimizer.learningRate;
  const floor = schedule.floor * peak;
  if (step < schedule.warmupSteps) return (peak * (step + 1)) / schedule.warmupSteps;
  if (share <= schedule.cosineFrom) return peak;
  if (share <= schedule.cosineUntil) {
    const turned = (share - schedule.cosineFrom) / (schedule.cosineUntil - schedule.cosineFrom);
    return floor + 0.5 * (peak - floor) * (1 + Math.cos(Math.PI * turned));
  }
  return share <= schedule.lastFrom ? floor : schedule.last * peak;
}

/** Linear in tokens, in whole micro-batches. */
export function batchRowsAt(config: TrainConfig, share: number): number {
  const { batchRows, microBatchRows, schedule } = config;
  if (schedule.rampStart === 1 || share >= schedule.rampUntil) return batchRows;
  const grown = schedule.rampStart + (1 - schedule.rampStart) * (share / schedule.rampUntil);
  return Math.max(microBatchRows, Math.floor((batchRows * grown) / microBatchRows) * microBatchRows);
}

/**
 * Rows of every step of the run, whose sum is the budget of which every share is taken.
 *
 * While the batch grows, the rows depend on the budget and the budget on the rows: the two are followed until they agree.
 */
export function planSteps(config: TrainConfig): readonly number[] {
  let budget = config.steps * config.batchRows;
  let rows = rowsFor(config, budget);
  for (let total = sum(rows); total !== budget; total = sum(rows)) {
    // Smaller budgets end the ramp earlier and make more rows: close to the fixed point two totals may take turns.
    const isTurning = total > budget;
    budget = total;
    rows = rowsFor(config, budget);
    if (isTurning) break;
  }
  return rows;
}

function rowsFor(config: TrainConfig, budget: number): readonly number[] {
  const rows: number[] = [];
  let seen = 0;
  while (rows.length < config.steps) {
    const next = batchRowsAt(config, seen / budget);
    rows.push(next);
    seen += next;
  }
  return rows;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

/** Rows of the whole run. */
export function plannedRows(config: TrainConfig): number {
  return config.schedule.rampStart === 1 ? config.steps * config.batchRows : sum(planSteps(config));
}
