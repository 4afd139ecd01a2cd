/**
 * Trains a model from plain text: joins the rooms into a run and reports it by events.
 *
 * Returns at once. Everything happens on the queue and in turns of the event loop; the run ends with its last step,
 * with an error, or soon after the signal, and in each case leaves a folder from which it can be resumed.
 */
import { cpus } from "node:os";
import { join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import {
  describeError,
  type Environment,
  EventChannel,
  type EventSink,
  fanOut,
  type JsonObject,
  type RunEvent,
  type RunEventBody,
  stampEvent,
} from "../base/index.ts";
import { countParameters, trainingFlopsPerToken } from "../model/index.ts";
import { BEFORE_FIRST_STEP, openEventLog, openTensorBoard, writeReport } from "../run/index.ts";
import { besideBf16, estimateStep, plannedRows, type TrainConfig, trainLoop } from "../train/index.ts";
import { type OpenDevice, openDevice } from "./openDevice.ts";
import { type OpenedRun, openRunFolder, type StartedRun, startRun } from "./startRun.ts";
import { checkTrainOptions, type TrainOptions } from "./trainOptions.ts";
import { version } from "./version.ts";

export interface TrainRun extends AsyncIterable<RunEvent> {
  /** Resolves with the folder and whether the run is complete; rejects with the error that ended it. */
  readonly finished: Promise<{ readonly path: string; readonly isComplete: boolean }>;
}

export function trainModel(options: TrainOptions): TrainRun {
  const channel = new EventChannel();
  const finished = run(options, channel).then(
    async (result) => {
      await channel.close();
      return result;
    },
    (error: unknown) => {
      channel.fail(error);
      throw error;
    },
  );
  // The iterator throws the same error; a caller that only iterates must not see an unhandled rejection too.
  finished.catch(() => undefined);
  return { finished, [Symbol.asyncIterator]: () => channel[Symbol.asyncIterator]() };
}

async function run(
  options: TrainOptions,
  channel: EventChannel,
): Promise<{ path: string; isComplete: boolean }> {
  // The caller goes on at once: loading the native addon takes a while.
  await nextTurn();
  checkTrainOptions(options);
  const signal = options.signal ?? new AbortController().signal;
  // Before the folder: a machine that cannot compute must not leave one behind.
  const device = openDevice({ threads: options.threads, backend: options.backend });
  try {
    const opened = await openRunFolder(options);
    try {
      const isComplete = await trainIn(opened, device, options, channel, signal);
      return { path: opened.folder.paths.root, isComplete };
    } finally {
      await opened.folder.close();
    }
  } finally {
    await device.device.dispose();
  }
}

async function trainIn(
  opened: OpenedRun,
  device: OpenDevice,
  options: TrainOptions,
  channel: EventChannel,
  signal: AbortSignal,
): Promise<boolean> {
  const readers = [channel, ...(options.sink === undefined ? [] : [options.sink])];
  let started: StartedRun;
  try {
    started = await startRun(opened, device, options, signal);
  } catch (error) {
    if (!signal.aborted || error !== signal.reason) throw error;
    fanOut(readers).emit(stampEvent(interruptedEarly(opened, options, signal)));
    return false;
  }
  const own = await openOwnSinks(started, options.tensorboard === true).catch(async (error: unknown) => {
    started.session.dispose();
    await started.prepared.data.train.close();
    throw error;
  });
  const all = fanOut([...own.sinks, ...readers]);
  const emit = (body: RunEventBody): void => all.emit(stampEvent(body));
  let isComplete: boolean;
  try {
    const environment = await describeMachine(device, started.config);
    await emitBeginning(started, environment, options.command ?? [], own, emit);
    if (device.warning !== null) emit(device.warning);
    isComplete = await trainSession(started, environment, emit, () => all.flush(), signal);
    if (isComplete && options.afterTraining !== undefined) {
      for (const event of await options.afterTraining(started)) emit(event);
    }
  } catch (error) {
    emit({ type: "run.failed", step: started.session.lastStep(), error: describeError(error) });
    // The first error is the one to tell: on a full disk every other step of leaving fails too.
    await leave(started, own.sinks).catch(() => undefined);
    throw error;
  }
  await leave(started, own.sinks);
  return isComplete;
}

/** Nothing was kept that could be resumed, unless the run existed before. */
function interruptedEarly(opened: OpenedRun, options: TrainOptions, signal: AbortSignal): RunEventBody {
  const again = ["minke", ...(options.command ?? ["train"])].join(" ");
  const { root } = opened.folder.paths;
  return {
    type: "run.interrupted",
    step: 0,
    signal: typeof signal.reason === "string" ? signal.reason : "AbortSignal",
    checkpoint: null,
    resume: opened.isResumed ? resumeCommand(root) : again,
  };
}

function resumeCommand(root: string): string {
  return `minke train --run ${root} --resume`;
}

interface OwnSinks {
  readonly sinks: readonly EventSink[];
  readonly warnings: readonly RunEventBody[];
  readonly repeatedSteps: number;
}

async function openOwnSinks({ folder, session }: StartedRun, hasTensorBoard: boolean): Promise<OwnSinks> {
  const { log, ...found } = await openEventLog(folder.paths.events, session.from?.step ?? BEFORE_FIRST_STEP);
  const sinks: EventSink[] = [log];
  if (hasTensorBoard) sinks.push(await openTensorBoard(join(folder.paths.root, "tensorboard")));
  return { sinks, ...found };
}

async function emitBeginning(
  started: StartedRun,
  environment: Environment,
  command: readonly string[],
  own: OwnSinks,
  emit: (body: RunEventBody) => void,
): Promise<void> {
  const { folder, config, prepared, session } = started;
  emit(
    session.from === null
      ? await startedEvent(started, environment, command)
      : {
          type: "run.resumed",
          version,
          step: session.from.step,
          checkpoint: `checkpoints/step-${session.from.step}`,
          config: config as unknown as JsonObject,
          ...plan(config),
          environment,
          repeatedSteps: own.repeatedSteps,
        },
  );
  for (const warning of [...folder.warnings, ...own.warnings, ...session.warnings]) emit(warning);
  if (session.from === null) for (const event of prepared.events) emit(event);
}

/** Closes everything and writes the report; tries all of it and throws the first failure. */
async function leave({ folder, prepared, session }: StartedRun, sinks: readonly EventSink[]): Promise<void> {
  session.dispose();
  const closed = await Promise.allSettled([prepared.data.train.close(), fanOut(sinks).close()]);
  await writeReport(folder.paths.root);
  for (const result of closed) if (result.status === "rejected") throw result.reason;
}

async function trainSession(
  { session, config, prepared }: StartedRun,
  environment: Environment,
  emit: (body: RunEventBody) => void,
  flush: () => Promise<void>,
  signal: AbortSignal,
): Promise<boolean> {
  const started = performance.now();
  const { train } = prepared.data.index;
  const isComplete = await trainLoop({
    session: session.session,
    rows: session.sampler,
    validation: prepared.data.validation,
    from: session.from,
    signal,
    hooks: {
      emit,
      sample: (prompt) => session.sample(prompt),
      save: (state, reason) => session.save(state, reason, emit, flush),
      resumeCommand: resumeCommand(session.root),
      peakFlopsPerSecond: environment.peakFlopsPerSecond,
      flopsPerToken: trainingFlopsPerToken(config.model, config.rowLength).total,
      bytesPerToken: train.bytes / train.tokens,
    },
  });
  emit({ type: "run.phase", name: "train", seconds: (performance.now() - started) / 1000 });
  return isComplete;
}

async function startedEvent(
  { folder, config, bytesBeforeTensors }: StartedRun,
  environment: Environment,
  command: readonly string[],
): Promise<RunEventBody> {
  const estimate = await estimateStep(config);
  const beside = await besideBf16(config, estimate);
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
      rssBytes: bytesBeforeTensors + estimate.nativeBytes,
      parts: estimate.parts,
      ...(beside.length === 0 ? {} : { besideBf16: beside }),
    },
    ...plan(config),
  };
}

function plan(config: TrainConfig): { readonly plannedSteps: number; readonly plannedTokens: number } {
  return { plannedSteps: config.steps, plannedTokens: plannedRows(config) * config.rowLength };
}

/** Seconds of the register-peak probe: long enough for the clock to settle. */
const PEAK_SECONDS = 0.1;

async function describeMachine({ native, threads }: OpenDevice, config: TrainConfig): Promise<Environment> {
  const { totalmem } = await import("node:os");
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
  };
}
