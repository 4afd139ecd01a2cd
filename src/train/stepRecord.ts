/** What every kind of step begins and ends with: its micro-batches with their weights, and the record that is read. */
import { HostScalar } from "../tensor/index.ts";
import { type BatchOptions, type BatchPlan, planBatch, type Rows } from "./batch.ts";
import { type LossWeights, lossScales } from "./losses.ts";
import type { Totals } from "./stepTotals.ts";

/** Read back once per step. Losses are means in nats per target. */
export interface StepRecord {
  readonly mainLoss: number;
  readonly mtpLosses: readonly number[];
  readonly balanceLoss: number;
  /** L = main + lambda / D * sum of MTP + balance. */
  readonly loss: number;
  readonly gradNorm: number;
  /** Share of MTP targets that were the most likely token, per module. */
  readonly mtpAccuracy: readonly number[];
  /** Tokens per expert, per MoE layer, MTP's last. */
  readonly expertLoad: readonly Int32Array[];
  /** Main targets. */
  readonly targets: number;
  /** The first rank said so when it began the step: all ranks hear it with the same step. */
  readonly isAskedToStop: boolean;
}

/** The rows of a step in micro-batches of equal numbers of rows. */
export function planMicroBatches(
  rows: Rows,
  microBatchRows: number,
  options: BatchOptions,
): readonly BatchPlan[] {
  const width = rows.rowLength + 1;
  return Array.from({ length: rows.count / microBatchRows }, (_, i) => {
    const tokens = rows.tokens.subarray(i * microBatchRows * width, (i + 1) * microBatchRows * width);
    return planBatch({ tokens, count: microBatchRows, rowLength: rows.rowLength }, options);
  });
}

/** Targets are counted over the whole step, so that it does not matter how it is cut. */
export function weighLosses(plans: readonly BatchPlan[], mtpWeight: number): LossWeights {
  const depths = plans[0]?.mtp.length ?? 0;
  return {
    mainCount: sum(plans.map((plan) => plan.valid)),
    mtpCounts: Array.from({ length: depths }, (_, k) => sum(plans.map((plan) => plan.mtp[k]!.valid))),
    mtpWeight,
  };
}

/** The scales of the losses, as what is recorded reads them. */
export interface HostScales {
  readonly main: HostScalar;
  readonly mtp: readonly HostScalar[];
}

export function makeScales(mtpDepth: number): HostScales {
  return { main: new HostScalar(), mtp: Array.from({ length: mtpDepth }, () => new HostScalar()) };
}

export function setScales({ main, mtp }: HostScales, weights: LossWeights): void {
  const scales = lossScales(weights);
  main.value = scales.main;
  for (const [k, scale] of mtp.entries()) scale.value = scales.mtp[k]!;
}

export function recordOf(totals: Totals, { mainCount, mtpCounts, mtpWeight }: LossWeights): StepRecord {
  const mtpLosses = mtpCounts.map((count, k) => totals.mtp[k]!.nats / Math.max(1, count));
  const mainLoss = totals.main / Math.max(1, mainCount);
  return {
    mainLoss,
    mtpLosses,
    balanceLoss: totals.balance,
    loss: mainLoss + (mtpWeight * sum(mtpLosses)) / Math.max(1, mtpLosses.length) + totals.balance,
    gradNorm: totals.gradNorm,
    mtpAccuracy: mtpCounts.map((count, k) => totals.mtp[k]!.hits / Math.max(1, count)),
    expertLoad: totals.expertLoad,
    targets: mainCount,
    isAskedToStop: totals.isAskedToStop,
  };
}

export function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
