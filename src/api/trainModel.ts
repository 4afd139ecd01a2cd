/**
 * Trains a model from plain text: joins the rooms into a run and reports it by events.
 *
 * Returns at once. Everything happens on the queue and in turns of the event loop; the run ends with its last step,
 * with an error, or soon after the signal, and in each case leaves a folder from which it can be resumed.
 */
import { cpus } from "node:os";
import { join } from "node:path";
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
import { countParameters, presetConfig, trainingFlopsPerToken } from "../model/index.ts";
import {
  createRun,
  freshRunPath,
  openEventLog,
  openRun,
  openTensorBoard,
  type RunFolder,
  writeReport,
} from "../run/index.ts";
import {
  defaultTrainConfig,
  estimateStep,
  parseTrainConfig,
  type TrainConfig,
  trainLoop,
} from "../train/index.ts";
import { type OpenDevice, openDevice } from "./openDevice.ts";
import { measureStepSeconds, type PreparedRun, prepareRun, stepsFor, withSettings } from "./prepareRun.ts";
import { type RunSession, startSession } from "./runSession.ts";
import { version } from "./version.ts";

export interface TrainOptions {
  readonly preset?: string;
  /** Files and folders of text. */
  readonly data?: readonly string[];
  readonly steps?: number;
  /** A time budget instead of a number of steps: measured once, then fixed. */
  readonly minutes?: number;
  readonly seed?: number;
  readonly threads?: number;
  readonly precision?: "f32" | "bf16";
  readonly backend?: "native" | "reference";
  /** The run's folder; a fresh one in ./runs by default. */
  readonly run?: string;
  readonly resume?: boolean;
  /** `path=value` settings on top of the preset. */
  readonly set?: readonly string[];
  readonly tensorboard?: boolean;
  /** As typed, for the run's records and for what is said about resuming. */
  readonly command?: readonly string[];
  readonly signal?: AbortSignal;
  /** Sees every event as it happens, beside the iterator. */
  readonly sink?: EventSink;
  /** What is going on before the first event. */
  readonly status?: (text: string) => void;
  /** Called with the prepared run before training begins, within the run's time. */
  readonly afterTraining?: (context: TrainedContext) => Promise<readonly RunEventBody[]>;
}

export interface TrainedContext {
  readonly config: TrainConfig;
  readonly prepared: PreparedRun;
}

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
  const signal = options.signal ?? new AbortController().signal;
  const started = await openFolder(options);
  const opened = openDevice({ threads: options.threads, backend: options.backend });
  try {
    return {
      path: started.folder.paths.root,
      isComplete: await trainIn(started, opened, options, channel, signal),
    };
  } finally {
    await opened.device.dispose();
    await started.folder.close();
  }
}

interface StartedRun {
  readonly folder: RunFolder;
  readonly config: TrainConfig;
  readonly isResumed: boolean;
}

async function openFolder(options: TrainOptions): Promise<StartedRun> {
  const settings = options.set ?? [];
  if (options.resume === true && options.run !== undefined) {
    const folder = await openRun(options.run);
    try {
      const stored = parseTrainConfig(folder.manifest.config, folder.paths.manifest);
      return { folder, config: withSettings(stored, settings), isResumed: true };
    } catch (error) {
      await folder.close();
      throw error;
    }
  }
  const config = newConfig(options, options.steps ?? 1000);
  const root = options.run ?? (await freshRunPath("runs", config.preset));
  const folder = await createRun(root, { version, command: options.command ?? [], config: config as never });
  return { folder, config, isResumed: false };
}

function newConfig(options: TrainOptions, steps: number): TrainConfig {
  const preset = options.preset ?? "nano";
  const settings = options.set ?? [];
  // Settings of the model come first: rows, batches and schedules follow from it.
  const modelSettings = settings.filter((setting) => setting.startsWith("model."));
  const base = defaultTrainConfig(preset, steps, presetConfig(preset));
  const model = modelSettings.length === 0 ? base.model : withSettings(base, modelSettings).model;
  const config = {
    ...defaultTrainConfig(preset, steps, model),
    ...(options.precision === undefined ? {} : { precision: options.precision }),
    ...(options.seed === undefined ? {} : { seed: options.seed }),
  };
  const data = { ...config.data, paths: [...(options.data ?? [])] };
  return withSettings({ ...config, data }, settings);
}

async function trainIn(
  { folder, config: stored, isResumed }: StartedRun,
  opened: OpenDevice,
  options: TrainOptions,
  channel: EventChannel,
  signal: AbortSignal,
): Promise<boolean> {
  const status = options.status ?? (() => undefined);
  const prepared = await prepareRun(folder, stored, signal, status);
  let config = stored;
  if (!isResumed && options.minutes !== undefined) {
    status("measuring the speed of this machine");
    const seconds = await measureStepSeconds(opened.device, stored, prepared.data);
    config = newConfig(options, stepsFor(options.minutes, seconds));
    await folder.rewriteConfig(config as never);
  }
  const session = await startSession(folder, config, prepared, opened, isResumed);
  const { log, warnings, repeatedSteps } = await openEventLog(folder.paths.events, session.from?.step ?? 0);
  const sinks: EventSink[] = [log, channel, ...(options.sink === undefined ? [] : [options.sink])];
  if (options.tensorboard === true) sinks.push(await openTensorBoard(join(folder.paths.root, "tensorboard")));
  const all = fanOut(sinks);
  const emit = (body: RunEventBody): void => all.emit(stampEvent(body));
  try {
    const environment = await describeMachine(opened, config);
    emit(
      session.from === null
        ? await startedEvent(folder, config, environment, options.command ?? [])
        : {
            type: "run.resumed",
            version,
            step: session.from.step,
            checkpoint: `checkpoints/step-${session.from.step}`,
            ...plan(config),
            environment,
            repeatedSteps,
          },
    );
    for (const warning of [...folder.warnings, ...warnings, ...session.warnings]) emit(warning);
    if (opened.warning !== null) emit(opened.warning);
    if (session.from === null) for (const event of prepared.events) emit(event);
    const isComplete = await trainSession(
      session,
      config,
      prepared,
      environment,
      emit,
      () => all.flush(),
      signal,
    );
    if (isComplete && options.afterTraining !== undefined) {
      for (const event of await options.afterTraining({ config, prepared })) emit(event);
    }
    return isComplete;
  } catch (error) {
    emit({ type: "run.failed", step: session.lastStep(), error: describeError(error) });
    throw error;
  } finally {
    session.dispose();
    await all.flush();
    await log.close();
    await writeReport(folder.paths.root);
    await prepared.data.train.close();
  }
}

async function trainSession(
  session: RunSession,
  config: TrainConfig,
  prepared: PreparedRun,
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
      resumeCommand: `minke train --run ${session.root} --resume`,
      peakFlopsPerSecond: environment.peakFlopsPerSecond,
      flopsPerToken: trainingFlopsPerToken(config.model, config.rowLength).total,
      bytesPerToken: train.bytes / train.tokens,
    },
  });
  emit({ type: "run.phase", name: "train", seconds: (performance.now() - started) / 1000 });
  return isComplete;
}

async function startedEvent(
  folder: RunFolder,
  config: TrainConfig,
  environment: Environment,
  command: readonly string[],
): Promise<RunEventBody> {
  const estimate = await estimateStep(config);
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
      // Tensors come on top of the process as it stands now, tokenizer and data included.
      rssBytes: process.memoryUsage.rss() + estimate.nativeBytes,
      parts: estimate.parts,
    },
    ...plan(config),
  };
}

function plan(config: TrainConfig): { readonly plannedSteps: number; readonly plannedTokens: number } {
  return { plannedSteps: config.steps, plannedTokens: config.steps * config.batchRows * config.rowLength };
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
    peakFlopsPerSecond: native === null ? null : await native.peak(config.precision, PEAK_SECONDS),
  };
}
