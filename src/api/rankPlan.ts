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
import { parseTrainConfig, type TrainConfig } from "../train/index.ts";
import type { OpenRank } from "./openRanks.ts";
import type { PreparedRun } from "./prepareRun.ts";
import type { TrainOptions } from "./trainOptions.ts";
import { version } from "./version.ts";

/** As the first rank tells it. */
export interface SharedPlan {
  readonly root: string;
  readonly config: JsonObject;
  /** Whether steps are timed before the config is settled. */
  readonly isMeasured: boolean;
}

/** What decides what a run computes, and with whom it speaks; the rest may differ from rank to rank. */
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
  "ranksPerNode",
  "schedule",
  "trace",
] as const;

/** What each rank was asked for, in the order of the ranks; empty for one rank alone. */
export async function gatherRequests({ team }: OpenRank, options: TrainOptions): Promise<readonly string[]> {
  if (team === null) return [];
  const mine = { version, ...Object.fromEntries(asked.map((name) => [name, options[name]])) };
  return gatherJson(team.communicator, JSON.stringify(mine));
}

/** @throws {ConfigError} if ranks were started with different arguments, or are different programs */
export function requireSameRequest(requests: readonly string[]): void {
  const other = requests.findIndex((theirs) => theirs !== requests[0]);
  if (other < 0) return;
  throw new ConfigError(`rank ${other} was started with other arguments than rank 0`, {
    why: `all ranks compute one run: rank 0 has ${requests[0]}, rank ${other} has ${requests[other]}`,
    fix: "start all ranks with one command line and one version of minke",
    fields: { rank: other },
  });
}

/** On the first rank: what comes before the plan. If it throws, the others are told that there will be none. */
export async function beforePlan<T>({ team }: OpenRank, task: () => Promise<T>): Promise<T> {
  try {
    return await task();
  } catch (error) {
    if (team !== null) await firstAlone(team.communicator, () => Promise.reject(error));
    throw error;
  }
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

/** What a rank has opened, or why it could not. */
type Seen = { readonly digest: string; readonly numerics: string } | { readonly problem: string };

/**
 * Lets all ranks compare what they see and how they compute, and the first decide.
 *
 * @param numerics  this rank's class (./numericClass.ts)
 * @returns  false on the others if the first does not go on
 * @throws   {ConfigError} on the first if a rank sees no run, another tokenizer or other rows, or would compute other bits
 */
export async function haveSameRun(
  { team }: Pick<OpenRank, "team">,
  prepared: PreparedRun | { readonly problem: string },
  numerics: string,
): Promise<boolean> {
  if (team === null) return true;
  const seen: Seen = "problem" in prepared ? prepared : { digest: await digestOf(prepared), numerics };
  const all = await gatherJson(team.communicator, seen);
  if (team.communicator.rank > 0) return (await hearFirst<boolean>(team.communicator)) === true;
  await firstAlone(team.communicator, async () => requireSame(all));
  return true;
}

function requireSame(all: readonly Seen[]): boolean {
  const [first] = all;
  for (const [rank, seen] of all.entries()) {
    const isEqual =
      "digest" in seen && first !== undefined && "digest" in first && seen.digest === first.digest;
    if (isEqual) continue;
    throw new ConfigError(`rank ${rank} does not see the run that rank 0 has prepared`, {
      why: "problem" in seen ? seen.problem : "its tokenizer or its rows are others",
      fix: "put the run on a file system that all hosts share: --run DIR",
      fields: { rank },
    });
  }
  requireOneClass(all.map((seen) => ("numerics" in seen ? seen.numerics : "")));
  return true;
}

/** Ranks of two classes would leave bits that depend on which of them computed what. */
function requireOneClass(all: readonly string[]): void {
  const [first] = all;
  const other = all.findIndex((theirs) => theirs !== first);
  if (other < 0) return;
  throw new ConfigError(
    `rank ${other} computes with ${all[other]} arithmetic where rank 0 does with ${first}`,
    {
      why: "AMX sums bf16 products in an order of its own: the run would depend on which rank computed what",
      fix: "start all ranks on machines of one kind (minke doctor names each one's instruction set), or begin the run with --precision f32, which is the same everywhere",
      fields: { rank: other, numerics: all },
    },
  );
}

async function digestOf({ data }: PreparedRun): Promise<string> {
  const folder = dirname(data.train.path);
  const hash = createHash("sha256").update(data.train.digest);
  for (const path of [join(folder, "..", "tokenizer.json"), join(folder, "index.json")])
    hash.update(await readFile(path));
  return hash.digest("hex");
}

/** From the first rank to all, once a time budget has become a number of steps. */
export async function tellConfig({ team }: OpenRank, config: JsonObject): Promise<TrainConfig> {
  const told = team === null ? config : await broadcastJson(team.communicator, config, 0);
  return parseTrainConfig(told, "run.json");
}
