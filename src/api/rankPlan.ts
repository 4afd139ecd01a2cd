/**
 * What the first rank tells the others before a run begins, and what all of them must agree about.
 *
 * The first owns the folder and prepares it; the others open what lies there. So all of them must have been asked for
 * the same, and must see the same files.
 */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { ConfigError, type JsonObject } from "../base/index.ts";
import { broadcastJson, firstAlone, gatherJson, hearFirst } from "../parallel/index.ts";
import { readManifest } from "../run/index.ts";
import { parseTrainConfig, type TrainConfig } from "../train/index.ts";
import type { OpenRank } from "./openRanks.ts";
import { type PreparedRun, prepareRun } from "./prepareRun.ts";
import type { TrainOptions } from "./trainOptions.ts";
import { version } from "./version.ts";

/** As the first rank tells it. */
export interface SharedPlan {
  readonly root: string;
  readonly config: JsonObject;
  /** Whether steps are timed before the config is settled. */
  readonly isMeasured: boolean;
}

/** What decides what a run computes; the rest may differ from rank to rank. */
const asked = [
  "preset",
  "data",
  "steps",
  "minutes",
  "seed",
  "precision",
  "run",
  "resume",
  "set",
  "layout",
  "zero1",
] as const;

/** @throws {ConfigError} if ranks were started with different arguments, or are different programs */
export async function requireSameRequest({ team }: OpenRank, options: TrainOptions): Promise<void> {
  if (team === null) return;
  const mine = JSON.stringify({ version, ...Object.fromEntries(asked.map((name) => [name, options[name]])) });
  const all = await gatherJson(team.communicator, mine);
  const other = all.findIndex((theirs) => theirs !== all[0]);
  if (other < 0) return;
  throw new ConfigError(`rank ${other} was started with other arguments than rank 0`, {
    why: `all ranks compute one run: rank 0 has ${all[0]}, rank ${other} has ${all[other]}`,
    fix: "start all ranks with one command line and one version of minke",
    fields: { rank: other },
  });
}

/** On the first rank: prepares the run, while the others wait to be told of it. */
export async function planForAll(
  { team }: OpenRank,
  plan: SharedPlan,
  prepare: () => Promise<PreparedRun>,
): Promise<PreparedRun> {
  if (team === null) return prepare();
  let prepared: PreparedRun | null = null;
  await firstAlone(team.communicator, async () => {
    prepared = await prepare();
    return plan;
  });
  return prepared!;
}

/** On the others: null if the first left before there was anything to do. */
export async function hearPlan({ team }: OpenRank): Promise<SharedPlan | null> {
  return hearFirst<SharedPlan>(team!.communicator);
}

/** What the first rank has prepared, as this one sees it. */
export async function openPrepared(rank: OpenRank, root: string, config: TrainConfig): Promise<PreparedRun> {
  await readManifest(root).catch((cause: unknown) => {
    throw new ConfigError(`rank ${rank.rank} does not see the run folder ${root}`, {
      why: "all ranks read one folder, which rank 0 has prepared",
      fix: "put the run on a file system that all hosts share: --run DIR",
      fields: { rank: rank.rank, path: root },
      cause,
    });
  });
  return prepareRun(root, config, new AbortController().signal, () => undefined);
}

/** @throws {ConfigError} if a rank sees another tokenizer or other rows than the first */
export async function requireSameData({ team }: OpenRank, { data }: PreparedRun): Promise<void> {
  if (team === null) return;
  const folder = dirname(data.train.path);
  const hash = createHash("sha256").update(data.train.digest);
  for (const path of [join(folder, "..", "tokenizer.json"), join(folder, "index.json")])
    hash.update(await readFile(path));
  const all = await gatherJson(team.communicator, hash.digest("hex"));
  const other = all.findIndex((theirs) => theirs !== all[0]);
  if (other < 0) return;
  throw new ConfigError(`rank ${other} sees other data than rank 0`, {
    why: `the tokenizer or the rows in ${folder} differ between their hosts`,
    fix: "put the run on a file system that all hosts share: --run DIR",
    fields: { rank: other, path: folder },
  });
}

/** From the first rank to all, once a time budget has become a number of steps. */
export async function tellConfig({ team }: OpenRank, config: JsonObject): Promise<TrainConfig> {
  const told = team === null ? config : await broadcastJson(team.communicator, config, 0);
  return parseTrainConfig(told, "run.json");
}
