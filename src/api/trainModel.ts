/**
 * Trains a model from plain text: joins the rooms into a run and reports it by events.
 *
 * Returns at once. Everything happens on the queue and in turns of the event loop; the run ends with its last step,
 * with an error, or soon after the signal, and in each case leaves a folder from which it can be resumed.
 */
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
import { trainingFlopsPerToken } from "../model/index.ts";
import { BEFORE_FIRST_STEP, openEventLog, openTensorBoard, writeReport } from "../run/index.ts";
import { type StepEstimate, trainLoop } from "../train/index.ts";
import { onFirstRank } from "./firstRank.ts";
import { followRun } from "./followRun.ts";
import { keepTrace } from "./keepTrace.ts";
import { closeRanks, launchFlags, type OpenRank, onEveryRank, openRanks } from "./openRanks.ts";
import { beforePlan, gatherRequests, requireSameRequest } from "./rankPlan.ts";
import { describeMachine, plan, planMemory, startedEvent } from "./runBeginning.ts";
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
  const ranks = await openRanks(options);
  try {
    return await onEveryRank(ranks, (rank) =>
      rank.rank === 0 ? leadRun(rank, options, channel, signal) : followRun(rank, options),
    );
  } finally {
    await closeRanks(ranks);
  }
}

/** The rank that owns the run's folder and tells what happens: the only one, or the first of many. */
async function leadRun(
  rank: OpenRank,
  options: TrainOptions,
  channel: EventChannel,
  signal: AbortSignal,
): Promise<{ path: string; isComplete: boolean }> {
  const requests = await gatherRequests(rank, options);
  const opened = await beforePlan(rank, async () => {
    requireSameRequest(requests);
    return openRunFolder(options);
  });
  try {
    const isComplete = await trainIn(opened, rank, options, channel, signal);
    return { path: opened.folder.paths.root, isComplete };
  } finally {
    await opened.folder.close();
  }
}

async function trainIn(
  opened: OpenedRun,
  rank: OpenRank,
  options: TrainOptions,
  channel: EventChannel,
  signal: AbortSignal,
): Promise<boolean> {
  const readers = [channel, ...(options.sink === undefined ? [] : [options.sink])];
  let started: StartedRun;
  try {
    started = await startRun(opened, rank, options, signal);
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
  let isOver = false;
  const emit = (body: RunEventBody): void => {
    // A loop that another rank's failure has left behind may come to say something yet.
    if (!isOver) all.emit(stampEvent(body));
  };
  let isComplete: boolean;
  try {
    const task = (): Promise<boolean> => trainWith(started, rank, options, own, { all, emit, signal });
    isComplete = await (rank.job === null ? task() : rank.job.whileAllLive(task));
  } catch (error) {
    emit({ type: "run.failed", step: started.session.lastStep(), error: describeError(error) });
    isOver = true;
    // The first error is the one to tell: on a full disk every other step of leaving fails too.
    await leave(started, own.sinks).catch(() => undefined);
    throw error;
  }
  await leave(started, own.sinks);
  return isComplete;
}

/** From the first event to the last. */
async function trainWith(
  started: StartedRun,
  rank: OpenRank,
  options: TrainOptions,
  own: OwnSinks,
  { all, emit, signal }: Stage,
): Promise<boolean> {
  const environment = await onFirstRank(rank, async () => {
    const planned = await planMemory(started);
    const described = await describeMachine(rank, started, planned);
    const command = options.command ?? [];
    await emitBeginning(started, { environment: described, planned, command }, own, emit);
    return described;
  });
  if (rank.warning !== null) emit(rank.warning);
  const flush = (): Promise<void> => all.flush();
  const isComplete = await trainSession(started, environment, { emit, flush }, signal, options.trace);
  if (isComplete && options.afterTraining !== undefined) {
    for (const event of await options.afterTraining(started)) emit(event);
  }
  return isComplete;
}

/** Nothing was kept that could be resumed, unless the run existed before. */
function interruptedEarly(opened: OpenedRun, options: TrainOptions, signal: AbortSignal): RunEventBody {
  const again = ["minke", ...(options.command ?? ["train"])].join(" ");
  return {
    type: "run.interrupted",
    step: 0,
    signal: typeof signal.reason === "string" ? signal.reason : "AbortSignal",
    checkpoint: null,
    resume: opened.isResumed ? resumeCommand(opened) : again,
  };
}

function resumeCommand({ folder, launch }: OpenedRun): string {
  return `minke train --run ${folder.paths.root} --resume${launchFlags(launch)}`;
}

interface Stage {
  /** The readers of the run's events. */
  readonly all: Required<EventSink>;
  readonly emit: (body: RunEventBody) => void;
  readonly signal: AbortSignal;
}

interface Beginning {
  readonly environment: Environment;
  /** What each rank will take. */
  readonly planned: readonly StepEstimate[];
  readonly command: readonly string[];
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
  { environment, planned, command }: Beginning,
  own: OwnSinks,
  emit: (body: RunEventBody) => void,
): Promise<void> {
  const { folder, config, prepared, session } = started;
  emit(
    session.from === null
      ? await startedEvent(started, environment, planned, command)
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
  run: StartedRun,
  environment: Environment,
  { emit, flush }: { readonly emit: (body: RunEventBody) => void; readonly flush: () => Promise<void> },
  signal: AbortSignal,
  trace: number | undefined,
): Promise<boolean> {
  const started = performance.now();
  const { session, config, prepared } = run;
  const { train } = prepared.data.index;
  const isComplete = await trainLoop({
    session: session.session,
    rows: session.sampler,
    validation: prepared.data.validation,
    from: session.from,
    signal,
    ...(trace === undefined
      ? {}
      : { trace: { steps: trace, keep: (ranks) => keepTrace(run.folder.paths.trace, ranks) } }),
    hooks: {
      emit,
      sample: (prompt) => session.sample(prompt),
      save: (state, reason) => session.save(state, reason, emit, flush),
      resumeCommand: resumeCommand(run),
      peakFlopsPerSecond: environment.peakFlopsPerSecond,
      flopsPerToken: trainingFlopsPerToken(config.model, config.rowLength).total,
      bytesPerToken: train.bytes / train.tokens,
    },
  });
  emit({ type: "run.phase", name: "train", seconds: (performance.now() - started) / 1000 });
  return isComplete;
}
