/** How well the model predicts held-out text: nats per token, bits per byte, and the MTP module's hit rate. */
import type { Pass } from "../../model/index.ts";
import { copyInto, countPositive, fill, Recording, reduceSum, type Tensor } from "../../tensor/index.ts";
import { type BatchTensors, disposeBatch, makeBatch, planBatch, type Rows, writeBatch } from "../batch.ts";
import { buildLosses } from "../losses.ts";
import type { Session } from "../rankSession.ts";

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

type Sums = Record<"nats" | "bytes" | "targets" | "mtpHits" | "mtpTargets", number>;

/**
 * Evaluates the first `maxRows` rows; the weights stay as they are.
 *
 * @returns  null if the signal came first: figures over some of the rows would be compared with figures over all
 */
export async function evaluate(
  session: Session,
  set: EvaluationSet,
  { maxRows, signal }: { readonly maxRows: number; readonly signal?: AbortSignal },
): Promise<Evaluation | null> {
  const count = Math.min(maxRows, set.rows.count);
  const width = set.rows.rowLength + 1;
  const totals: Sums = { nats: 0, bytes: 0, targets: 0, mtpHits: 0, mtpTargets: 0 };
  const { microBatchRows } = session.config;
  const whole = count - (count % microBatchRows);
  for (const [start, end, size] of [
    [0, whole, microBatchRows],
    [whole, count, count - whole],
  ] as const) {
    if (start === end) continue;
    using pass = new EvaluationPass(session, size);
    for (let from = start; from < end; from += size) {
      if (signal?.aborted === true) return null;
      const tokens = set.rows.tokens.subarray(from * width, (from + size) * width);
      const part = await pass.run({ tokens, count: size, rowLength: set.rows.rowLength }, set.bytesOf);
      for (const name of ["nats", "bytes", "targets", "mtpHits", "mtpTargets"] as const)
        totals[name] += part[name];
    }
  }
  return {
    loss: totals.nats / totals.targets,
    bitsPerByte: totals.nats / Math.LN2 / totals.bytes,
    nextNextTokenAccuracy: totals.mtpTargets === 0 ? null : totals.mtpHits / totals.mtpTargets,
    targets: totals.targets,
  };
}

/** A forward pass over some rows at once, built for the first and replayed for those that follow. */
class EvaluationPass {
  readonly #session: Session;
  readonly #batch: BatchTensors;
  /** Main loss in nats, and hits of the first MTP module. */
  readonly #sums: Tensor;
  readonly #forward: Recording;

  constructor(session: Session, rows: number) {
    const { device, model, precision, runner } = session;
    const { documentEnd } = runner.parts;
    const sizes = { rows, rowLength: session.config.rowLength, mtpDepth: model.mtp.length };
    this.#session = session;
    this.#batch = makeBatch(device, { ...sizes, masksDocuments: documentEnd !== null });
    this.#sums = device.temporary([2], precision.router);
    this.#forward = new Recording(device, () => this.#enqueue());
  }

  async run(rows: Rows, bytesOf: EvaluationSet["bytesOf"]): Promise<Sums> {
    const { padId, documentEnd } = this.#session.runner.parts;
    const plan = planBatch(rows, { mtpDepth: this.#batch.mtp.length, padId, documentEnd });
    writeBatch(this.#batch, plan);
    this.#forward.run();
    const [nats, mtpHits] = await this.#sums.read();
    return {
      nats: nats!,
      // Of the targets, not of the rows: where documents are masked, the first token of each is predicted from nothing.
      bytes: plan.targets.reduce((sum, id) => sum + (id < 0 ? 0 : bytesOf(id)), 0),
      targets: plan.valid,
      mtpHits: mtpHits!,
      mtpTargets: plan.mtp[0]?.valid ?? 0,
    };
  }

  [Symbol.dispose](): void {
    disposeBatch(this.#batch);
    this.#sums.dispose();
  }

  #enqueue(): void {
    const { model, rope, precision, dispatch } = this.#session;
    const { positions, seqOffsets } = this.#batch;
    const pass: Pass = {
      positions,
      seqOffsets,
      rope,
      precision,
      cache: null,
      balanceAlpha: null,
      dispatch,
    };
    const scales = { main: 1, mtp: model.mtp.map(() => 1) };
    const { main, mtp } = buildLosses(model, this.#batch, pass, scales);
    fill(this.#sums, 0);
    copyInto(reduceSum(main.loss, 1), this.#sums.rows(0, 1));
    for (const { hits } of mtp.slice(0, 1)) copyInto(countPositive(hits), this.#sums.rows(1, 2));
  }
}
