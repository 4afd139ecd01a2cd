/** Starts a program of test/mpi/programs/ as several ranks, and knows whether any of them outlived its job. */
import { spawnSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "vitest";
import { builtMpiAddons, type MpiFlavour } from "../../src/parallel/index.ts";
import { type Outcome, startProgram } from "./minke.ts";
import { nativeIsMissing } from "./native.ts";

const root = join(import.meta.dirname, "..", "..");

/** What a launcher calls itself. */
const SELF: Readonly<Record<MpiFlavour, RegExp>> = { openmpi: /Open MPI/, mpich: /HYDRA|MPICH/ };

/** The launcher of a library: Debian keeps several side by side, elsewhere there is one by the plain name. */
function launcherFor(flavour: MpiFlavour): string | undefined {
  return [`mpirun.${flavour}`, "mpirun"].find((name) => {
    const { status, stdout } = spawnSync(name, ["--version"], { encoding: "utf8" });
    return status === 0 && SELF[flavour].test(stdout);
  });
}

/** MPI libraries that this machine can start ranks with; none where the native kernels are missing, which MPI needs. */
export const mpiFlavours: readonly MpiFlavour[] = (["openmpi", "mpich"] as const).filter((flavour) => {
  const isHere = launcherFor(flavour) !== undefined;
  const isBuilt = mpiAddonPath(flavour) !== undefined;
  // Otherwise a broken build would look like a machine without MPI.
  if (isHere && !isBuilt && spawnSync(`mpicc.${flavour}`, ["--version"]).status === 0) {
    throw new Error(`mpicc.${flavour} is here, but its addon is not: node scripts/build-mpi.js`);
  }
  return isHere && isBuilt && !nativeIsMissing;
});

// In every file that uses this: without it a file whose tests are all for MPI would have none, which is an error.
if (mpiFlavours.length === 0) {
  test.skip("MPI or the native addon is not here (apt install openmpi-bin libopenmpi-dev, then npm ci)", () =>
    undefined);
}

export function mpiAddonPath(flavour: MpiFlavour): string | undefined {
  return builtMpiAddons(flavour).find((path) => path.includes(flavour));
}

export interface RankOptions {
  readonly flavour?: MpiFlavour;
  /** Of mpirun, before the program. */
  readonly flags?: readonly string[];
  /** What starts mpirun: a program and its arguments. */
  readonly prefix?: readonly string[];
  readonly cwd?: string;
}

export interface Job {
  /** What the ranks write, as they write it. */
  readonly stdout: Readable;
  readonly finished: Promise<Outcome>;
  /** Process ids of the ranks that live. */
  ranks(): readonly number[];
  /** What still lives a while after the job: a launcher returns when it has killed its ranks, not when they are gone. */
  survivors(): Promise<readonly number[]>;
}

/** `mpirun -n RANKS node PROGRAM ARGS...`; a program without a folder is one of test/mpi/programs/. */
export function startRanks(
  ranks: number,
  program: string,
  args: readonly string[] = [],
  options: RankOptions = {},
): Job {
  const { flavour = "openmpi", flags = [], prefix = [], cwd = root } = options;
  const own = flavour === "openmpi" ? ["--oversubscribe", "--bind-to", "none", "-x", MARKER] : [];
  const file = program.includes("/") ? program : join(root, "test", "mpi", "programs", program);
  const launch = [launcherFor(flavour) ?? "mpirun", ...own, ...flags, "-n", String(ranks)];
  const marker = `${MARKER}=${randomUUID()}`;
  const environment = ["OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1", marker];
  const words = [...environment, ...prefix, ...launch, process.execPath, file, ...args];
  const { child, finished } = startProgram("env", words, { cwd });
  const nodes = (): readonly number[] =>
    processesWith(marker).filter((id) => wordsOf(id, "cmdline")[0] === process.execPath);
  return {
    stdout: child.stdout!,
    finished,
    ranks: nodes,
    survivors: () => stillThere(() => processesWith(marker)),
  };
}

/** Marks every process of a job, ranks, launchers and daemons alike. */
const MARKER = "MINKE_TEST_JOB";

async function stillThere(living: () => readonly number[]): Promise<readonly number[]> {
  const deadline = performance.now() + 3000;
  while (living().length > 0 && performance.now() < deadline) await sleep(50);
  return living();
}

function processesWith(variable: string): readonly number[] {
  const ids = globSync("/proc/[0-9]*").map((path) => Number(path.split("/")[2]));
  return ids.filter((id) => wordsOf(id, "environ").includes(variable));
}

function wordsOf(id: number, file: "cmdline" | "environ"): readonly string[] {
  return readIfThere(`/proc/${id}/${file}`).split("\0");
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
