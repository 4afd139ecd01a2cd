/**
 * All that comes before a run's first event: its folder, config, tokenizer, data, weights.
 *
 * A new run that does not get so far leaves nothing behind, so that the same command can be given again; a run that is
 * resumed is left as it was found.
 */
import type { JsonObject } from "../base/index.ts";
import { createRun, freshRunPath, type LaunchLayout, openRun, type RunFolder } from "../run/index.ts";
import type { TrainConfig } from "../train/index.ts";
import { collectGarbage } from "./collectGarbage.ts";
import { numericClass } from "./numericClass.ts";
import { type Launch, launchOf, type OpenRank, requireFit } from "./openRanks.ts";
import { measureStepSeconds, type PreparedRun, preparedNames, prepareRun, stepsFor } from "./prepareRun.ts";
import { haveSameRun, planForAll, type SharedPlan, tellConfig } from "./rankPlan.ts";
import {
  newConfig,
  type RunRequest,
  readRequest,
  requestOf,
  resumedConfig,
  resumeSettings,
} from "./runConfig.ts";
import { type RunSession, startSession } from "./runSession.ts";
import type { TrainOptions } from "./trainOptions.ts";
import { version } from "./version.ts";

export interface OpenedRun {
  readonly folder: RunFolder;
  readonly config: TrainConfig;
  readonly isResumed: boolean;
  /** With a time budget that is still to be measured, config.steps only stands in; null where the steps are known. */
  readonly unsettled: RunRequest | null;
  readonly launch: Launch | null;
}

export interface StartedRun extends OpenedRun {
  readonly prepared: PreparedRun;
  readonly session: RunSession;
  /** Resident bytes of the process with tokenizer and data, before any tensor was touched. */
  readonly bytesBeforeTensors: number;
}

/** Steps of a run that names neither steps nor minutes; stands in until a time budget is measured. */
const DEFAULT_STEPS = 1000;

/** Owns the folder of the run and knows its config; nothing else has been done. */
export async function openRunFolder(options: TrainOptions): Promise<OpenedRun> {
  const launch = launchOf(options);
  if (options.resume === true && options.run !== undefined) {
    const folder = await openRun(options.run);
    try {
      const settings = resumeSettings(options);
      const config = resumedConfig(folder.manifest, folder.paths.manifest, settings);
      requireFit(launch, config);
      const unsettled = readRequest(folder.manifest, settings);
      return { folder, config, isResumed: true, unsettled, launch };
    } catch (error) {
      await folder.close();
      throw error;
    }
  }
  const request = requestOf(options);
  const unsettled = request.minutes === undefined ? null : request;
  const config = newConfig(request, options.steps ?? DEFAULT_STEPS);
  requireFit(launch, config);
  const root = options.run ?? (await freshRunPath("runs", config.preset));
  const folder = await createRun(root, {
    version,
    command: options.command ?? [],
    config: toJson(config),
    // Killed before its speed was measured, the run must not go on for the steps that only stand in.
    unsettled: unsettled as JsonObject | null,
  });
  return { folder, config, isResumed: false, unsettled, launch };
}

/** Prepares the run, measures a time budget, and makes or restores the weights. */
export async function startRun(
  opened: OpenedRun,
  rank: OpenRank,
  options: TrainOptions,
  signal: AbortSignal,
): Promise<StartedRun> {
  try {
    return await prepareAndStart(opened, rank, options, signal);
  } catch (error) {
    if (!opened.isResumed) await opened.folder.discard(preparedNames);
    throw error;
  }
}

async function prepareAndStart(
  opened: OpenedRun,
  rank: OpenRank,
  options: TrainOptions,
  signal: AbortSignal,
): Promise<StartedRun> {
  const { folder, config: stored, unsettled } = opened;
  const { root } = folder.paths;
  const status = options.status ?? (() => undefined);
  const plan: SharedPlan = { root, config: toJson(stored), isMeasured: unsettled?.minutes !== undefined };
  const prepared = await planForAll(rank, plan, () => prepareRun(root, stored, signal, status));
  collectGarbage();
  const bytesBeforeTensors = process.memoryUsage.rss();
  try {
    await haveSameRun(rank, prepared, numericClass(rank, stored.precision));
    let config = stored;
    if (unsettled?.minutes !== undefined) {
      status("measuring the speed of this machine");
      const seconds = await measureStepSeconds(rank, stored, prepared.data);
      config = newConfig(unsettled, stepsFor(unsettled.minutes, seconds));
      await tellConfig(rank, toJson(config));
    }
    const session = await startSession(opened, config, prepared, rank);
    // Only now: a setting with which the run cannot start must not stay in its run.json.
    if (config !== stored || resumeSettings(options).length > 0) await folder.settleConfig(toJson(config));
    await folder.noteLayout(notedLayout(opened.launch));
    return { ...opened, config, prepared, session, bytesBeforeTensors };
  } catch (error) {
    await prepared.data.train.close();
    throw error;
  }
}

function notedLayout(launch: Launch | null): LaunchLayout | null {
  if (launch === null) return null;
  const { layout } = launch;
  return { ...layout, schedule: layout.pp > 1 ? layout.schedule : null };
}

function toJson(config: TrainConfig): JsonObject {
  return config as unknown as JsonObject;
}
