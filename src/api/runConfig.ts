/** The config of a run: a new one from what was asked for, or the stored one with what may still change. */
import { resolve } from "node:path";
import { z } from "zod";
import { ConfigError, parseConfig } from "../base/index.ts";
import { presetConfig } from "../model/index.ts";
import type { RunManifest } from "../run/index.ts";
import { defaultTrainConfig, parseTrainConfig, type TrainConfig } from "../train/index.ts";
import { withSettings } from "./prepareRun.ts";
import type { TrainOptions } from "./trainOptions.ts";

/** The options that a config follows from, once the number of steps is known. */
export type RunRequest = Pick<TrainOptions, "preset" | "data" | "minutes" | "seed" | "precision" | "set">;

const requestSchema: z.ZodType<RunRequest> = z.strictObject({
  preset: z.string().optional(),
  data: z.array(z.string()).optional(),
  minutes: z.number().positive().optional(),
  seed: z.number().optional(),
  precision: z.enum(["f32", "bf16", "fp8"]).optional(),
  set: z.array(z.string()).optional(),
}) as z.ZodType<RunRequest>;

export function requestOf({ preset, data, minutes, seed, precision, set }: TrainOptions): RunRequest {
  // Whole paths: the run may be resumed from another folder.
  const all = { preset, data: data?.map((path) => resolve(path)), minutes, seed, precision, set };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

/** What a run that was killed before its speed was measured had been asked for, with later settings on top. */
export function readRequest(manifest: RunManifest, settings: readonly string[]): RunRequest | null {
  if (manifest.unsettled === null) return null;
  const request = parseConfig(requestSchema, manifest.unsettled, "run.json");
  return { ...request, set: [...(request.set ?? []), ...settings] };
}

export function newConfig(request: RunRequest, steps: number): TrainConfig {
  const preset = request.preset ?? "nano";
  const settings = request.set ?? [];
  // Model and precision come first: rows, batches and schedules follow from the one, the moments' dtype from the other.
  const first = settings.filter((setting) => /^(model\.|precision=)/.test(setting));
  const base = defaultTrainConfig(preset, steps, presetConfig(preset), request.precision);
  const { model, precision } = first.length === 0 ? base : withSettings(base, first);
  const config = {
    ...defaultTrainConfig(preset, steps, model, precision),
    ...(request.seed === undefined ? {} : { seed: request.seed }),
  };
  const data = { ...config.data, paths: [...(request.data ?? [])] };
  return withSettings({ ...config, data }, settings);
}

/** What weights, optimizer state and prepared rows were made for. */
const boundToRun = ["preset", "model", "seed", "rowLength", "gradientShards", "data"] as const;

/** What `--set` and the flags that stand for a setting change in a run that goes on. */
export function resumeSettings({
  precision,
  set,
}: Pick<TrainOptions, "precision" | "set">): readonly string[] {
  return [...(precision === undefined ? [] : [`precision=${precision}`]), ...(set ?? [])];
}

export function resumedConfig(
  manifest: RunManifest,
  where: string,
  settings: readonly string[],
): TrainConfig {
  const stored = parseTrainConfig(manifest.config, where);
  const config = withSettings(stored, settings);
  if ((config.precision === "f32") !== (stored.precision === "f32")) {
    throw new ConfigError(`a run in ${stored.precision} cannot go on in ${config.precision}`, {
      why: "a checkpoint in f32 has its weights in the model's file, one in bf16 or fp8 has rounded copies there and f32 masters beside them",
      fix: "go on in the precision of the run, or between bf16 and fp8; or start a new run",
      fields: { key: "precision", settings },
    });
  }
  const changed = boundToRun.find((key) => JSON.stringify(config[key]) !== JSON.stringify(stored[key]));
  if (changed === undefined) return config;
  throw new ConfigError(`${changed} cannot change in a run that goes on`, {
    why: "its weights, optimizer state and prepared rows were made for the old value",
    fix: "leave the setting out, or start a new run with it",
    fields: { key: changed, settings },
  });
}
