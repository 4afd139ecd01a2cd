/** How well the model predicts held-out text: nats per token, bits per byte, and the MTP module's hit rate. */
import type { Pass } from "../../model/index.ts";
import { countPositive, reduceSum } from "../../tensor/index.ts";
import { planBatch, type Rows, uploadBatch } from "../batch.ts";
import { buildLosses } from "../losses.ts";
import type { TrainSession } from "../session.ts";

/** Held-out rows, each token predicted once. */
export interface EvaluationSet {
  readonly rows: Rows;
  /** Bytes of text that a token stands for; the end of a document has none. */
  readonly bytesOf: (id: number) => number;
}

export interface Evaluation {
  /** Nats per target. */
  readonly loss: number;
  /** Nats of all targets, ends of documents included, over ln 2 and the bytes that they stand for. */
  readonly bitsPerByte: number;
  /** Share of targets of the first MTP module that it finds most likely; null without MTP. */
  readonly nextNextTokenAccuracy: number | null;
  readonly targets: number;
}

/**
 * Evaluates the first `maxRows` rows; the weights stay as they are, nothing is recorded.
 *
 * @returns  null if the signal came first: figures over some of the rows would be compared with figures over all
 */
export async function evaluate(
  session: TrainSession,
  set: EvaluationSet,
  { maxRows, signal }: { readonly maxRows: number; readonly signal?: AbortSignal },
): Promise<Evaluation | null> {
  const count = Math.min(maxRows, set.rows.count);
  const width = set.rows.rowLength + 1;
  const totals = { nats: 0, bytes: 0, targets: 0, mtpHits: 0, mtpTargets: 0 };
  const { microBatchRows } = session.config;
  for (let from = 0; from < count; from += microBatchRows) {
    if (signal?.aborted === true) return null;
    const to = Math.min(count, from + microBatchRows);
    const tokens = set.rows.tokens.subarray(from * width, to * width);
    const rows = { tokens, count: to - from, rowLength: set.rows.rowLength };
    const part = await evaluateRows(session, rows, set.bytesOf);
    totals.nats += part.nats;
    totals.bytes += part.bytes;
    totals.targets += part.targets;
    totals.mtpHits += part.mtpHits;
    totals.mtpTargets += part.mtpTargets;
  }
  return {
    loss: totals.nats / totals.targets,
    bitsPerByte: totals.nats / Math.LN2 / totals.bytes,
    nextNextTokenAccuracy: totals.mtpTargets === 0 ? null : totals.mtpHits / totals.mtpTargets,
    targets: totals.targets,
  };
}

async function evaluateRows(
  { device, model, rope, precision, runner }: TrainSession,
  rows: Rows,
  bytesOf: EvaluationSet["bytesOf"],
): Promise<{ nats: number; bytes: number; targets: number; mtpHits: number; mtpTargets: number }> {
  const { padId, documentEnd } = runner.parts;
  const plan = planBatch(rows, { mtpDepth: model.mtp.length, padId, documentEnd });
  let reads: Promise<ArrayLike<number>[]>;
  {
    using _scope = device.scope();
    const batch = uploadBatch(device, plan);
    const { positions, seqOffsets } = batch;
    const pass: Pass = { positions, seqOffsets, rope, precision, cache: null, balanceAlpha: null };
    const weights = { mainCount: 1, mtpCounts: model.mtp.map(() => 1), mtpWeight: 1 };
    const { main, mtp } = buildLosses(model, batch, pass, weights);
    const wanted = [reduceSum(main.loss, 1), ...mtp.slice(0, 1).map(({ hits }) => countPositive(hits))];
    reads = Promise.all(wanted.map((tensor) => tensor.read()));
  }
  const [nats, hits] = await reads;
  return {
    nats: nats![0]!,
    // Of the targets, not of the rows: where documents are masked, the first token of each is predicted from nothing.
    bytes: plan.targets.reduce((sum, id) => sum + (id < 0 ? 0 : bytesOf(id)), 0),
    targets: plan.valid,
    mtpHits: hits?.[0] ?? 0,
    mtpTargets: plan.mtp[0]?.valid ?? 0,
  };
}
