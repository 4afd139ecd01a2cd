/** Starts a program of test/mpi/programs/ as several ranks, and knows whether any of them outlived its job. */
import { spawnSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { builtMpiAddons, type MpiFlavour } from "../../src/parallel/index.ts";
import { type Outcome, startProgram } from "./minke.ts";

const root = join(import.meta.dirname, "..", "..");

/** MPI libraries that this machine can start ranks with. */
export const mpiFlavours: readonly MpiFlavour[] = (["openmpi", "mpich"] as const).filter((flavour) => {
  const isHere = spawnSync(`mpirun.${flavour}`, ["--version"]).status === 0;
  const isBuilt = mpiAddonPath(flavour) !== undefined;
  // Otherwise a broken build would look like a machine without MPI.
  if (isHere && !isBuilt && spawnSync(`mpicc.${flavour}`, ["--version"]).status === 0) {
    throw new Error(`mpicc.${flavour} is here, but its addon is not: node scripts/build-mpi.js`);
  }
  return isHere && isBuilt;
});

export function mpiAddonPath(flavour: MpiFlavour): string | undefined {
  return builtMpiAddons(flavour).find((path) => path.includes(flavour));
}

export interface RankOptions {
  readonly flavour?: MpiFlavour;
  /** Of mpirun, before the program. */
  readonly flags?: readonly string[];
  readonly cwd?: string;
}

export interface Job {
  readonly finished: Promise<Outcome>;
  /** Process ids of the ranks that live. */
  ranks(): readonly number[];
  /** Ranks that still live a while after the job: a launcher returns when it has killed them, not when they are gone. */
  survivors(): Promise<readonly number[]>;
}

/** `mpirun -n RANKS node test/mpi/programs/PROGRAM ARGS...` */
export function startRanks(
  ranks: number,
  program: string,
  args: readonly string[] = [],
  options: RankOptions = {},
): Job {
  const marker = randomUUID();
  const { flavour = "openmpi", flags = [], cwd = root } = options;
  const own = flavour === "openmpi" ? ["--oversubscribe", "--bind-to", "none"] : [];
  const file = join(root, "test", "mpi", "programs", program);
  const command = [
    `mpirun.${flavour}`,
    ...own,
    ...flags,
    "-n",
    String(ranks),
    process.execPath,
    file,
    ...args,
  ];
  const allowed = ["OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"];
  const { finished } = startProgram("env", [...allowed, ...command, marker], { cwd });
  const living = (): readonly number[] => processesWith(marker, process.execPath);
  return { finished, ranks: living, survivors: () => stillThere(living) };
}

async function stillThere(living: () => readonly number[]): Promise<readonly number[]> {
  const deadline = performance.now() + 3000;
  while (living().length > 0 && performance.now() < deadline) await sleep(50);
  return living();
}

/** Processes of a program that have this word among their arguments. */
export function processesWith(word: string, program: string): readonly number[] {
  return globSync("/proc/[0-9]*/cmdline").flatMap((path) => {
    const words = readIfThere(path).split("\0");
    return words[0] === program && words.includes(word) ? [Number(path.split("/")[2])] : [];
  });
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    // It ended between the listing and the reading.
    return "";
  }
}

/** How often a text occurs in another. */
export function occurrences(text: string, part: string): number {
  return text.split(part).length - 1;
}
