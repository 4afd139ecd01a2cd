/**
 * The folder that a run leaves behind.
 *
 *   run.json        who the run is: id, version, command, the whole config, the ranks that last worked on it
 *   events.jsonl    all that happened (eventLog.ts)
 *   checkpoints/    step-N, each in Hugging Face layout
 *   latest          the name of the newest whole checkpoint: `step-N`
 *   lock            the process that writes here, while it does (lock.ts)
 *
 * The folder is the truth; the index across runs (store.ts), TensorBoard files and reports are made from it.
 */
import { mkdir, readdir, readFile, rm, rmdir } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { z } from "zod";
import { type JsonObject, parseConfig, RunError, type RunWarning } from "../../base/index.ts";
import { writeFileAtomic } from "../files/atomicFile.ts";
import { errorCode, explained } from "../files/fileErrors.ts";
import { acquireLock, type Lock, mayLive, readLock, releaseLock } from "./lock.ts";

export interface RunManifest {
  readonly schema: 1;
  readonly runId: string;
  /** ISO 8601, UTC. */
  readonly created: string;
  readonly version: string;
  readonly command: readonly string[];
  readonly config: JsonObject;
  /** What was asked for, while the config still waits for the machine's speed; null once the config is settled. */
  readonly unsettled: JsonObject | null;
  /** How ranks share the work since the run was last started; null for one rank. Never what comes out. */
  readonly layout: LaunchLayout | null;
}

/** Ranks of data, expert and pipeline parallelism; whether optimizer states are sharded. */
export interface LaunchLayout {
  readonly dp: number;
  readonly ep: number;
  readonly pp: number;
  readonly zero1: boolean;
  /** Of the pipeline; null where there is none. */
  readonly schedule: string | null;
}

const ranks: z.ZodNumber = z.int().positive();

const manifestSchema = z.strictObject({
  schema: z.literal(1),
  runId: z.string().min(1),
  created: z.iso.datetime(),
  version: z.string(),
  command: z.array(z.string()),
  config: z.record(z.string(), z.unknown()),
  unsettled: z.record(z.string(), z.unknown()).nullable().default(null),
  // Runs from before there were ranks have no such key.
  layout: z
    .object({
      dp: ranks,
      ep: ranks,
      pp: ranks,
      zero1: z.boolean(),
      schedule: z.string().nullable().default(null),
    })
    .nullable()
    .default(null),
});

/** Where things are in a run folder; for readers, who need no lock. */
export interface RunPaths {
  readonly root: string;
  readonly manifest: string;
  readonly events: string;
  readonly checkpoints: string;
  readonly latest: string;
  readonly lock: string;
}

export function runPaths(root: string): RunPaths {
  const path = resolve(root);
  return {
    root: path,
    manifest: join(path, "run.json"),
    events: join(path, "events.jsonl"),
    checkpoints: join(path, "checkpoints"),
    latest: join(path, "latest"),
    lock: join(path, "lock"),
  };
}

/** `step-120`: the name of a step's checkpoint in `checkpoints/` and in `latest`. */
export function checkpointName(step: number): string {
  return `step-${step}`;
}

/** A run folder that this process owns, until it is closed. */
export class RunFolder {
  readonly paths: RunPaths;
  /** What the owner should hear of: a lock that was taken over. To be emitted by whoever opened the folder. */
  readonly warnings: readonly RunWarning[];
  readonly #lock: Lock;
  #manifest: RunManifest;

  constructor(paths: RunPaths, manifest: RunManifest, lock: Lock) {
    this.paths = paths;
    this.#manifest = manifest;
    this.#lock = lock;
    this.warnings = lock.takenFrom === null ? [] : [takeoverWarning(lock)];
  }

  get manifest(): RunManifest {
    return this.#manifest;
  }

  /** Settles the config before the first event: only then is a time budget known as a number of steps. */
  async settleConfig(config: JsonObject): Promise<void> {
    this.#manifest = { ...this.#manifest, config, unsettled: null };
    await writeFileAtomic(this.paths.manifest, manifestText(this.#manifest));
  }

  /** Notes how the ranks share the work from here on. */
  async noteLayout(layout: LaunchLayout | null): Promise<void> {
    if (JSON.stringify(layout) === JSON.stringify(this.#manifest.layout)) return;
    this.#manifest = { ...this.#manifest, layout };
    await writeFileAtomic(this.paths.manifest, manifestText(this.#manifest));
  }

  /** Moves `latest`; the checkpoint has to be whole, and on the disk, before. */
  async writeLatest(name: string): Promise<void> {
    await writeFileAtomic(this.paths.latest, `${name}\n`);
  }

  /**
   * Takes back what creation made, for a run that never began: the same command can then be given again.
   *
   * @param names  what else was put into the folder; anything not named stays
   */
  async discard(names: readonly string[]): Promise<void> {
    const { root, manifest, checkpoints } = this.paths;
    for (const path of [...names.map((name) => join(root, name)), checkpoints, manifest]) {
      await rm(path, { recursive: true, force: true });
    }
    await this.close();
    if ((await namesIn(root)).length === 0) await rmdir(root);
  }

  /** Gives the folder back. Nothing may be written afterwards. */
  async close(): Promise<void> {
    await releaseLock(this.#lock);
  }
}

/**
 * Makes a run folder and owns it.
 *
 * @throws {RunError} if it already holds a run, or anything else, or may not be written
 */
export async function createRun(
  root: string,
  run: Pick<RunManifest, "version" | "command" | "config"> &
    Partial<Pick<RunManifest, "unsettled" | "layout">>,
  now: Date = new Date(),
): Promise<RunFolder> {
  const paths = runPaths(root);
  await explained(paths.root, "make the run folder", async () => {
    await refuseOtherContent(paths);
    await mkdir(paths.checkpoints, { recursive: true });
  });
  const lock = await acquireLock(paths.lock);
  try {
    // Again, now that nobody else can begin a run here.
    await refuseOtherContent(paths);
    const manifest: RunManifest = {
      schema: 1,
      runId: basename(paths.root),
      created: now.toISOString(),
      unsettled: null,
      layout: null,
      ...run,
    };
    await writeFileAtomic(paths.manifest, manifestText(manifest));
    return new RunFolder(paths, manifest, lock);
  } catch (error) {
    await releaseLock(lock);
    throw error;
  }
}

function manifestText(manifest: RunManifest): string {
  return `${JSON.stringify(manifest, undefined, 2)}\n`;
}

/** Owns a run folder that exists, to go on with its run. */
export async function openRun(root: string): Promise<RunFolder> {
  const manifest = await readManifest(root);
  const paths = runPaths(root);
  return new RunFolder(paths, manifest, await acquireLock(paths.lock));
}

/** @throws {RunError} if the folder holds no run; {ConfigError} if its run.json is damaged */
export async function readManifest(root: string): Promise<RunManifest> {
  const { manifest } = runPaths(root);
  try {
    return parseConfig(manifestSchema, JSON.parse(await readFile(manifest, "utf8")), manifest) as RunManifest;
  } catch (error) {
    if (error instanceof SyntaxError) {
      throw new RunError(`${manifest} is not JSON`, {
        why: `run.json is written once and whole, so it was damaged later: ${error.message}`,
        fix: "restore run.json from a copy; the first line of events.jsonl holds the same config",
        fields: { path: manifest },
        cause: error,
      });
    }
    if (errorCode(error) !== "ENOENT" && errorCode(error) !== "ENOTDIR") throw error;
    throw new RunError(`${root} is not a run folder`, {
      why: "a run folder has a run.json, and this one has none",
      fix: "name the folder of a run; `minke runs list` shows them",
      fields: { path: root },
      cause: error,
    });
  }
}

/** The name that `latest` holds (`step-120`); null before the first checkpoint. */
export async function readLatest(root: string): Promise<string | null> {
  try {
    return (await readFile(runPaths(root).latest, "utf8")).trim() || null;
  } catch (error) {
    if (errorCode(error) === "ENOENT") return null;
    throw error;
  }
}

/** True while a process that lives, or may live, owns the run. */
export async function isOwned(root: string): Promise<boolean> {
  const owner = await readLock(runPaths(root).lock);
  return owner !== null && mayLive(owner);
}

/**
 * A folder for a new run that nobody uses yet: `runs/2026-11-21-nano-1`, then `-2`.
 *
 * @param label  what the run is, for people: the preset's name
 */
export async function freshRunPath(runsRoot: string, label: string, now: Date = new Date()): Promise<string> {
  const stem = `${now.toISOString().slice(0, 10)}-${label}-`;
  const numbers = (await namesIn(runsRoot))
    .filter((name) => name.startsWith(stem))
    .map((name) => Number(name.slice(stem.length)))
    .filter(Number.isInteger);
  return join(runsRoot, `${stem}${Math.max(0, ...numbers) + 1}`);
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return [];
    throw error;
  }
}

async function refuseOtherContent(paths: RunPaths): Promise<void> {
  // What a creation that was cut off before run.json may have left behind is no reason to refuse.
  const leftovers = /^(checkpoints|lock(\..*)?|run\.json\..*\.tmp)$/;
  const names = (await namesIn(paths.root)).filter((name) => !leftovers.test(name));
  if (names.length === 0) return;
  const isRun = names.includes("run.json");
  throw new RunError(`${paths.root} already holds ${isRun ? "a run" : names.slice(0, 3).join(", ")}`, {
    why: isRun
      ? "a new run would mix its events with those of the old one"
      : "a run wants a folder of its own",
    fix: isRun ? "add --resume to go on with it, or choose another --run DIR" : "choose another --run DIR",
    fields: { path: paths.root, names },
  });
}

function takeoverWarning({ takenFrom, path }: Lock): RunWarning {
  return {
    type: "run.warning",
    what: `took over the lock ${path} of process ${takenFrom?.pid}, which is gone`,
    why: "that process ended without giving the run folder back: it was killed, or the machine stopped",
    fix: null,
  };
}
