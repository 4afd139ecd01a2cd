/**
 * All that comes before a run's first event: its folder, config, tokenizer, data, weights.
 *
 * A new run that does not get so far leaves nothing behind, so that the same command can be given again; a run that is
 * resumed is left as it was found.
 */
import { ConfigError, type JsonObject } from "../base/index.ts";
import { presetConfig } from "../model/index.ts";
import { createRun, freshRunPath, openRun, type RunFolder } from "../run/index.ts";
import { defaultTrainConfig, parseTrainConfig, type TrainConfig } from "../train/index.ts";
import type { OpenDevice } from "./openDevice.ts";
import {
  measureStepSeconds,
  type PreparedRun,
  preparedNames,
  prepareRun,
  stepsFor,
  withSettings,
} from "./prepareRun.ts";
import { type RunSession, startSession } from "./runSession.ts";
import type { TrainOptions } from "./trainOptions.ts";
import { version } from "./version.ts";

export interface OpenedRun {
  readonly folder: RunFolder;
  readonly config: TrainConfig;
  readonly isResumed: boolean;
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
  if (options.resume === true && options.run !== undefined) {
    const folder = await openRun(options.run);
    try {
      return { folder, config: resumedConfig(folder, options.set ?? []), isResumed: true };
    } catch (error) {
      await folder.close();
      throw error;
    }
  }
  const config = newConfig(options, options.steps ?? DEFAULT_STEPS);
  const root = options.run ?? (await freshRunPath("runs", config.preset));
  const folder = await createRun(root, {
    version,
    command: options.command ?? [],
    config: toJson(config),
  });
  return { folder, config, isResumed: false };
}

/** Prepares the run, measures a time budget, and makes or restores the weights. */
export async function startRun(
  opened: OpenedRun,
  device: OpenDevice,
  options: TrainOptions,
  signal: AbortSignal,
): Promise<StartedRun> {
  try {
    return await prepareAndStart(opened, device, options, signal);
  } catch (error) {
    if (!opened.isResumed) await opened.folder.discard(preparedNames);
    throw error;
  }
}

async function prepareAndStart(
  { folder, config: stored, isResumed }: OpenedRun,
  device: OpenDevice,
  options: TrainOptions,
  signal: AbortSignal,
): Promise<StartedRun> {
  const status = options.status ?? (() => undefined);
  const prepared = await prepareRun(folder, stored, signal, status);
  const bytesBeforeTensors = process.memoryUsage.rss();
  try {
    let config = stored;
    if (!isResumed && options.minutes !== undefined) {
      status("measuring the speed of this machine");
      const seconds = await measureStepSeconds(device.device, stored, prepared.data);
      config = newConfig(options, stepsFor(options.minutes, seconds));
    }
    const session = await startSession(folder, config, prepared, device, isResumed);
    // Only now: a setting with which the run cannot start must not stay in its run.json.
    if (config !== stored || (options.set ?? []).length > 0) await folder.rewriteConfig(toJson(config));
    return { folder, config, isResumed, prepared, session, bytesBeforeTensors };
  } catch (error) {
    await prepared.data.train.close();
    throw error;
  }
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

/** What weights, optimizer state and prepared rows were made for. */
const boundToRun = ["preset", "model", "precision", "seed", "rowLength", "gradientShards", "data"] as const;

function resumedConfig(folder: RunFolder, settings: readonly string[]): TrainConfig {
  const stored = parseTrainConfig(folder.manifest.config, folder.paths.manifest);
  const config = withSettings(stored, settings);
  const changed = boundToRun.find((key) => JSON.stringify(config[key]) !== JSON.stringify(stored[key]));
  if (changed === undefined) return config;
  throw new ConfigError(`--set ${settings.join(" ")}: ${changed} cannot change in a run that goes on`, {
    why: "its weights, optimizer state and prepared rows were made for the old value",
    fix: "leave the setting out, or start a new run with it",
    fields: { key: changed, settings },
  });
}

function toJson(config: TrainConfig): JsonObject {
  return config as unknown as JsonObject;
}
