/**
 * The training loop: rows in, steps taken or skipped, events out; evaluation, samples and checkpoints in between.
 *
 * Where the loop stands is a small plain object that a checkpoint stores; a loop started from it goes on with the
 * same bits. What a run leaves behind (files, samples of text) is handed in from above.
 *
 * Over ranks each has a loop, all take the same steps with the same records, and the first has the hooks that do
 * something: it alone evaluates and samples, unless they share the experts, and listens to the signal.
 */
import { finiteOrNull, NonFiniteError, type RunEventBody } from "../base/index.ts";
import { maxViolation } from "../model/index.ts";
import { type Communicator, firstAlone, followFirst, gatherJson } from "../parallel/index.ts";
import type { Rows } from "./batch.ts";
import { type EvaluationSet, evaluate } from "./eval/evaluate.ts";
import { findNonFinite, worstOf } from "./findNonFinite.ts";
import { SpikeGuard } from "./guards.ts";
import type { LoopState } from "./loopState.ts";
import type { Session } from "./rankSession.ts";
import { plannedRows, type ScheduledValues, scheduleAt } from "./schedule.ts";
import type { StepRecord } from "./stepRecord.ts";
import { StepTrace, type TraceRequest } from "./stepTrace.ts";

export interface RowSource {
  next(count: number): Rows;
  position: { readonly epoch: number; readonly row: number };
}

/** What the loop asks of the rooms above and beside it. */
export interface LoopHooks {
  emit(event: RunEventBody): void;
  /** Every rank comes here at the same step: each may have a part of what the first one writes. */
  save(state: LoopState, reason: "scheduled" | "last" | "interrupted"): Promise<string>;
  sample(prompt: string): Promise<string>;
  /** The command that continues this run. */
  readonly resumeCommand: string;
  /** FLOP/s of the whole machine, measured; null where it is not known. */
  readonly peakFlopsPerSecond: number | null;
  /** Of the mathematics, per token. */
  readonly flopsPerToken: number;
  /** Of the training text. */
  readonly bytesPerToken: number;
}

export interface LoopInput {
  readonly session: Session;
  readonly rows: RowSource;
  /** Null if nothing is held out; the same on all ranks. */
  readonly validation: EvaluationSet | null;
  readonly hooks: LoopHooks;
  readonly signal: AbortSignal;
  /** Null starts anew. */
  readonly from: LoopState | null;
  /** What is to be recorded of the steps; the same on all ranks. */
  readonly trace?: TraceRequest;
}

/** Trains to the planned last step, or to the signal. Returns whether the run is complete. */
export async function trainLoop(input: LoopInput): Promise<boolean> {
  const loop = new Loop(input);
  return loop.run();
}

class Loop {
  readonly #input: LoopInput;
  readonly #guard = new SpikeGuard();
  readonly #plannedRows: number;
  readonly #trace: StepTrace | null;
  #step = 0;
  #rowsSeen = 0;
  #tokensSeen = 0;
  #validationLoss: number | null = null;
  #savedAt = -1;
  #assembledAt = -1;
  /** What the first rank said with the last step. */
  #isAskedToStop = false;

  constructor(input: LoopInput) {
    this.#input = input;
    this.#plannedRows = plannedRows(input.session.config);
    const { from, session, rows, trace } = input;
    const { communicator } = session;
    const isTraced = trace !== undefined && communicator !== null;
    this.#trace = isTraced ? new StepTrace(session, communicator, trace) : null;
    if (from === null) return;
    this.#step = from.step;
    this.#rowsSeen = from.rowsSeen;
    this.#tokensSeen = from.tokensSeen;
    this.#validationLoss = from.validationLoss;
    this.#guard.state = from.guard;
    this.#savedAt = from.step;
    session.optimizer.updates = from.updates;
    rows.position = from.data;
  }

  get #state(): LoopState {
    return {
      step: this.#step,
      updates: this.#input.session.optimizer.updates,
      rowsSeen: this.#rowsSeen,
      tokensSeen: this.#tokensSeen,
      data: { ...this.#input.rows.position },
      guard: this.#guard.state,
      validationLoss: this.#validationLoss,
    };
  }

  get #communicator(): Communicator | null {
    return this.#input.session.communicator;
  }

  /** The same on all ranks, so that they stop after the same step. */
  get #mustStop(): boolean {
    return this.#communicator === null ? this.#input.signal.aborted : this.#isAskedToStop;
  }

  async run(): Promise<boolean> {
    const { session, signal } = this.#input;
    const { config } = session;
    const started = performance.now();
    this.#isAskedToStop = await this.#onFirst(async () => signal.aborted);
    while (this.#step < config.steps) {
      if (this.#mustStop) {
        await this.#trace?.end();
        return this.#interrupt();
      }
      await this.#trace?.beforeStep();
      await this.#oneStep();
      await this.#trace?.afterStep();
      await this.#afterStep();
    }
    await this.#trace?.end();
    const lastRows = config.evaluate.lastRows ?? Number.POSITIVE_INFINITY;
    if (!(await this.#evaluate(lastRows))) return this.#interrupt();
    if (this.#savedAt !== this.#step) await this.#save("last");
    const seconds = (performance.now() - started) / 1000;
    this.#input.hooks.emit({
      type: "run.completed",
      step: this.#step,
      tokensSeen: this.#tokensSeen,
      seconds,
    });
    return true;
  }

  async #oneStep(): Promise<void> {
    const { session, rows, hooks } = this.#input;
    const { config } = session;
    const started = performance.now();
    const share = this.#rowsSeen / this.#plannedRows;
    const scheduled = scheduleAt(config, { step: this.#step, share });
    const batch = rows.next(scheduled.batchRows);
    const record = await session.runner.compute(batch, scheduled, this.#input.signal.aborted);
    this.#isAskedToStop = record.isAskedToStop;
    const verdict = this.#guard.judge(record.loss, record.gradNorm);
    if (verdict.kind === "take") session.runner.commit(scheduled);
    this.#step++;
    this.#rowsSeen += batch.count;
    this.#tokensSeen += batch.count * batch.rowLength;
    const seconds = (performance.now() - started) / 1000;
    if (verdict.kind === "take") {
      hooks.emit(this.#completed(record, scheduled, batch, seconds));
      return;
    }
    const culprit = verdict.reason.startsWith("non-finite") ? await this.#findCulprit() : null;
    hooks.emit({
      type: "step.skipped",
      step: this.#step,
      reason: verdict.reason,
      tensor: culprit,
      loss: finiteOrNull(record.loss),
      gradNorm: finiteOrNull(record.gradNorm),
    });
    if (verdict.kind === "stop") throw this.#broken(verdict.reason, culprit);
  }

  #completed(record: StepRecord, scheduled: ScheduledValues, batch: Rows, seconds: number): RunEventBody {
    const { session, hooks } = this.#input;
    const tokensPerSecond = (batch.count * batch.rowLength) / seconds;
    const layers = session.factory.buffers.map((buffer) => Number(/\d+/.exec(buffer.path)?.[0]));
    const peak = hooks.peakFlopsPerSecond;
    return {
      type: "step.completed",
      step: this.#step,
      tokensSeen: this.#tokensSeen,
      loss: record.loss,
      mainLoss: record.mainLoss,
      mtpLosses: [...record.mtpLosses],
      balanceLoss: record.balanceLoss,
      bitsPerByte: record.mainLoss / Math.LN2 / hooks.bytesPerToken,
      gradNorm: record.gradNorm,
      learningRate: scheduled.learningRate,
      gamma: scheduled.gamma,
      mtpWeight: scheduled.mtpWeight,
      batchRows: batch.count,
      tokensPerSecond,
      shareOfPeak: peak === null ? null : (tokensPerSecond * hooks.flopsPerToken) / peak,
      seconds,
      expertLoad: record.expertLoad.map((load, i) => ({ layer: layers[i]!, counts: Array.from(load) })),
      maxViolation: Math.max(0, ...record.expertLoad.map(maxViolation)),
      liveBytes: session.device.arena.liveBytes,
      rssBytes: process.memoryUsage.rss(),
    };
  }

  /** The tensor that is not finite: a gradient may be so at its owner alone. */
  async #findCulprit(): Promise<string | null> {
    const found = await findNonFinite(this.#input.session.heldFactories);
    const communicator = this.#communicator;
    if (communicator === null) return found;
    return worstOf(await gatherJson(communicator, found));
  }

  async #afterStep(): Promise<void> {
    const { evaluate: evaluation, sample, checkpoint, steps } = this.#input.session.config;
    const isDue = (every: number): boolean => every > 0 && this.#step % every === 0 && this.#step < steps;
    const isFirst = (this.#communicator?.rank ?? 0) === 0;
    if (isDue(Math.max(1, Math.floor(steps / 20)))) {
      this.#assemble();
      if (isFirst) await this.#emitBias();
    }
    if (isDue(evaluation.everySteps)) await this.#evaluate(evaluation.rows);
    const isSampled = isDue(sample.everySteps) || this.#step === 1 || this.#step === steps;
    if (isSampled && sample.prompts.length > 0) await this.#withModel(() => this.#sample(sample.prompts));
    // While steps are skipped the weights may be the broken part: a checkpoint now could push out the last good one.
    const isSound = this.#guard.state.skippedInARow === 0;
    if (isDue(checkpoint.everySteps) && isSound && this.#savedAt !== this.#step)
      await this.#save("scheduled");
  }

  /** Done by the first rank alone; true on all of them if it says so. If it throws, all end. */
  async #onFirst(task: () => Promise<boolean>): Promise<boolean> {
    const communicator = this.#communicator;
    if (communicator === null) return task();
    if (communicator.rank > 0) return followFirst<boolean>(communicator);
    return (await firstAlone(communicator, task)) === true;
  }

  /**
   * Runs the model forward: with the whole of it on the first rank, or on all of them with the same rows where they
   * share the experts; then nothing stops it on its way, because the others would wait.
   */
  async #withModel(task: () => Promise<boolean>): Promise<boolean> {
    const { session, signal } = this.#input;
    this.#assemble();
    if (session.dispatch === null) return this.#onFirst(task);
    return (await this.#onFirst(async () => !signal.aborted)) && (await task());
  }

  /** Once for each step, whatever asks for the whole model after it; the same on all ranks. */
  #assemble(): void {
    if (this.#assembledAt === this.#step) return;
    this.#input.session.assemble();
    this.#assembledAt = this.#step;
  }

  async #sample(prompts: readonly string[]): Promise<boolean> {
    const { hooks, session, signal } = this.#input;
    if (session.dispatch === null && signal.aborted) return false;
    for (const prompt of prompts)
      hooks.emit({ type: "sample.generated", step: this.#step, prompt, text: await hooks.sample(prompt) });
    return true;
  }

  async #emitBias(): Promise<void> {
    const { session, hooks } = this.#input;
    const layers = await Promise.all(
      session.factory.buffers.map(async ({ path, value }) => ({
        layer: Number(/\d+/.exec(path)?.[0]),
        bias: Array.from(await value.read()),
      })),
    );
    hooks.emit({ type: "router.bias", step: this.#step, layers });
  }

  /** False if the signal cut it short: then nothing is reported, and a resumed run does not make up for it. */
  async #evaluate(maxRows: number): Promise<boolean> {
    const { validation } = this.#input;
    // Nothing is held out: then no rank brings the model together for it either.
    return validation === null || this.#withModel(() => this.#evaluateOn(validation, maxRows));
  }

  async #evaluateOn(validation: EvaluationSet, maxRows: number): Promise<boolean> {
    const { session, hooks, signal } = this.#input;
    const started = performance.now();
    const stop = session.dispatch === null ? { signal } : {};
    const result = await evaluate(session, validation, { maxRows, ...stop });
    if (result === null) return false;
    hooks.emit({
      type: "evaluation.completed",
      step: this.#step,
      split: "validation",
      loss: finiteOrNull(result.loss),
      bitsPerByte: finiteOrNull(result.bitsPerByte),
      nextNextTokenAccuracy: result.nextNextTokenAccuracy,
      tokens: result.targets,
      seconds: (performance.now() - started) / 1000,
    });
    this.#validationLoss = finiteOrNull(result.loss);
    return true;
  }

  async #save(reason: "scheduled" | "last" | "interrupted"): Promise<string> {
    this.#assemble();
    const path = await this.#input.hooks.save(this.#state, reason);
    this.#savedAt = this.#step;
    return path;
  }

  async #interrupt(): Promise<false> {
    const { hooks, signal } = this.#input;
    const checkpoint = this.#step === 0 ? null : await this.#save("interrupted");
    const cause: unknown = signal.reason;
    hooks.emit({
      type: "run.interrupted",
      step: this.#step,
      signal: typeof cause === "string" ? cause : "AbortSignal",
      checkpoint,
      resume: hooks.resumeCommand,
    });
    return false;
  }

  #broken(reason: string, culprit: string | null): NonFiniteError {
    return new NonFiniteError(
      `step ${this.#step}: ${reason}, ${this.#guard.state.skippedInARow} steps in a row skipped`,
      {
        why:
          culprit === null
            ? "the updates have led the model astray"
            : `${culprit} holds a value that is not finite`,
        fix: "resume from the last checkpoint with a lower learning rate: --resume --set optimizer.learningRate=...",
        fields: { step: this.#step, tensor: culprit },
      },
    );
  }
}
