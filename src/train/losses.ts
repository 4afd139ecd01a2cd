/**
 * The training loss of one micro-batch: L = L_main + (lambda / D) * sum_k L_k + sum of balance losses.
 *
 * Each cross-entropy is a mean over the targets of the whole step, so micro-batches add up to the same loss
 * however the step is cut.
 *
 * Source: DeepSeek-V3 report, eq. (17)-(20), (24)-(25).
 */
import type { Head, MainOutput, MoeReport, Pass, Transformer } from "../model/index.ts";
import { fill, linearCrossEntropy, type Param, type Tape, type Tensor } from "../tensor/index.ts";
import type { BatchTensors } from "./batch.ts";

/** What each sum is divided by, and what it weighs. */
export interface LossWeights {
  /** Main targets in the whole step. */
  readonly mainCount: number;
  /** Targets of each MTP module in the whole step. */
  readonly mtpCounts: readonly number[];
  /** lambda; shared evenly by the modules. */
  readonly mtpWeight: number;
}

/** What the sum over tokens of each loss is multiplied by. */
export interface LossScales {
  readonly main: Param;
  readonly mtp: readonly Param[];
}

export function lossScales({ mainCount, mtpCounts, mtpWeight }: LossWeights): {
  readonly main: number;
  readonly mtp: readonly number[];
} {
  return {
    main: 1 / Math.max(1, mainCount),
    mtp: mtpCounts.map((count) => mtpWeight / mtpCounts.length / Math.max(1, count)),
  };
}

export interface TokenLosses {
  /** [T] f32, nats; 0 where there is no target */
  readonly loss: Tensor;
  /** [T] i32: 1 where the most likely token is the target */
  readonly hits: Tensor;
}

export interface Losses {
  readonly main: TokenLosses;
  readonly mtp: readonly TokenLosses[];
  /** Of every MoE layer, MTP's last. */
  readonly reports: readonly MoeReport[];
}

/** Those of a part of the model: without the head there is no main loss. */
export type PartLosses = Omit<Losses, "main"> & { readonly main: TokenLosses | null };

/** Builds the forward pass; with a tape, everything that a backward pass needs. */
export function buildLosses(model: Transformer, batch: BatchTensors, pass: Pass, scales: LossScales): Losses {
  return lossesOf(model.forward(batch.ids, pass), model, batch, pass, scales);
}

/** What the head and the MTP modules make of the layers' output. */
export function lossesOf(
  output: MainOutput,
  head: Pick<Head, "lmHead" | "mtp">,
  batch: BatchTensors,
  pass: Pass,
  scales: LossScales,
): Losses {
  const main = linearCrossEntropy(output.normed, head.lmHead, batch.targets, scales.main);
  const reports: MoeReport[] = [...output.reports];
  const mtp: TokenLosses[] = [];
  let { hidden } = output;
  for (const [k, module] of head.mtp.entries()) {
    const shifted = batch.mtp[k]!;
    const predicted = module.forward(hidden, shifted.ids, pass);
    mtp.push(linearCrossEntropy(predicted.normed, module.lmHead, shifted.targets, scales.mtp[k]!));
    if (predicted.report !== null) reports.push(predicted.report);
    hidden = predicted.hidden;
  }
  return { main, mtp, reports };
}

/** Starts the backward pass at every loss. Their weights are inside the losses, so each seed is 1. */
export function seedLosses(tape: Tape, { main, mtp, reports }: PartLosses): void {
  const roots = [...(main === null ? [] : [main.loss]), ...mtp.map((module) => module.loss)];
  for (const { balanceLoss } of reports) if (balanceLoss !== null) roots.push(balanceLoss);
  for (const root of roots) {
    const one = root.device.empty(root.shape, root.dtype);
    fill(one, 1);
    tape.seed(root, one);
  }
}
