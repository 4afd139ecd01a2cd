/**
 * This process as one rank of an MPI job: joins it, refuses a world that is not the launcher's, and sees to it that no
 * rank can end without the others knowing.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { inspect } from "node:util";
import { BaseError, CollectiveError, invariant } from "../../../base/index.ts";
import { checkedTimeout, type QueueDevice } from "../../../tensor/index.ts";
import type { Communicator } from "../communicator.ts";
import { QueueCommunicator } from "../queueCommunicator.ts";
import { type Launcher, launcherOf } from "./launcher.ts";
import { builtMpiAddons, libraryName, loadMpiAddon, type MpiAddon, type MpiFacts } from "./mpiAddon.ts";

export interface MpiOptions {
  /** Seconds that a rank waits for a message before it ends the job; 600 by default. */
  readonly timeoutSeconds?: number;
  /** A built addon; by default the one that fits the launcher. */
  readonly addon?: string;
}

export interface MpiJob extends MpiFacts {
  /** The MPI library and its version. */
  readonly library: string;
  /** This rank's communicator over its queue: the native backend's, for messages leave the queue's own thread. Once. */
  communicator(device: QueueDevice): Communicator;
  /**
   * Runs the task unless another rank fails meanwhile. If one does, or the task throws, the job lives on for a few
   * seconds, so that rank 0 can write down why.
   *
   * @throws {CollectiveError} that says which rank has failed, and why
   */
  whileAllLive<T>(task: () => Promise<T>): Promise<T>;
  /** Resolves when every rank has left; to be called once, behind the last message. */
  leave(): Promise<void>;
  /** Ends the job on every rank with this reason, this process included. */
  abort(why: string): void;
}

/** How long the other ranks wait while the first one says what is wrong with all of them: a launcher may end it with them. */
const FIRST_SPEAKS_MS = 3000;

const TIMEOUT_SECONDS = 600;

/** How often a rank looks whether another one has failed, and how long the job then lives on, for what is to be written. */
const [WATCH_MS, LAST_WORDS_SECONDS] = [100, 4];

/** How often a leaving rank looks whether the others have left, in milliseconds. */
const LEAVE_POLL_MS = 5;

/**
 * Joins the job that mpirun or srun has started, all ranks of it together. Without a launcher it is a job of one rank.
 *
 * MPI is started once in a process and cannot be started again.
 */
export function joinMpi(options: MpiOptions = {}): MpiJob {
  const launcher = launcherOf(process.env);
  const addon = loadMpiAddon(options.addon ?? builtMpiAddons(launcher?.flavour ?? null)[0]);
  const facts = addon.start(checkedTimeout(options.timeoutSeconds ?? TIMEOUT_SECONDS));
  requireLaunchersWorld(addon, facts, launcher);
  const takeOff = leaveAtExit(addon);
  let isTaken = false;
  return {
    ...facts,
    library: libraryName(addon),
    communicator: (device) => {
      invariant(!isTaken, "a rank has one queue, and its messages have one communicator");
      isTaken = true;
      device.backend.connect(facts.table);
      return QueueCommunicator.world(device, addon, facts.rank, facts.size);
    },
    leave: async () => {
      while (addon.leave(0) !== null) await sleep(LEAVE_POLL_MS);
      takeOff();
    },
    whileAllLive: (task) => whileAllLive(addon, task),
    abort: (why) => addon.abort(why),
  };
}

async function whileAllLive<T>(addon: MpiAddon, task: () => Promise<T>): Promise<T> {
  const look = (): string | null => addon.attend(LAST_WORDS_SECONDS);
  look();
  let watch: NodeJS.Timeout | undefined;
  const failed = new Promise<never>((_, reject) => {
    watch = setInterval(() => {
      const reason = look();
      if (reason !== null) reject(otherRankFailed(reason));
    }, WATCH_MS);
  });
  try {
    const result = await Promise.race([task(), failed]);
    addon.attend(0);
    return result;
  } catch (error) {
    // What the task says of another's failure follows from it.
    const reason = look();
    throw reason === null ? error : otherRankFailed(reason);
  } finally {
    clearInterval(watch);
  }
}

function otherRankFailed(reason: string): CollectiveError {
  const [what = reason] = reason.split("\n");
  return new CollectiveError(what, {
    why: "ranks that compute one run go on together or end together",
    fix: "mend what that rank says, then go on from the newest checkpoint: minke train --run DIR --resume",
    fields: { reason },
  });
}

/**
 * An MPI library that does not understand its launcher starts without a word as rank 0 of 1, in every process: each
 * would train the whole model and write the same folder.
 */
function requireLaunchersWorld(addon: MpiAddon, facts: MpiFacts, launcher: Launcher | null): void {
  if (launcher === null || launcher.size === facts.size) return;
  const other =
    addon.flavour === "Open MPI" ? "mpirun.openmpi, or srun --mpi=pmix" : "mpirun.mpich, or srun --mpi=pmi2";
  // Leaves the world of one that it is in: no other rank of the real one has joined it.
  addon.leave(1);
  // All ranks are wrong in the same way, and one of them says so. (Not every launcher ends the others when it fails.)
  if (launcher.rank > 0) {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, FIRST_SPEAKS_MS);
    process.exit(1);
  }
  throw new CollectiveError(
    `MPI sees ${facts.size} rank${facts.size === 1 ? "" : "s"} where the launcher started ${launcher.size}`,
    {
      why: `${launcher.name} set ${launcher.variable}=${launcher.size}, but the addon is built for ${addon.flavour}, which does not understand this launcher`,
      fix: `start the job with ${addon.flavour}'s own launcher (${other}), or build the addon for the launcher's library: MPICC=mpicc.mpich node scripts/build-mpi.js (or mpicc.openmpi)`,
      fields: {
        size: facts.size,
        launched: launcher.size,
        variable: launcher.variable,
        flavour: addon.flavour,
      },
    },
  );
}

/**
 * A rank that goes in order waits for the others; one that fails ends them, for they would wait for its messages.
 *
 * Returns what takes the hooks off again.
 */
function leaveAtExit(addon: MpiAddon): () => void {
  let uncaught: unknown;
  const note = (error: unknown): void => {
    uncaught = error;
  };
  const atExit = (code: number): void => {
    // Node prints an uncaught error behind its exit hooks, which is too late here.
    if (uncaught !== undefined) process.stderr.write(`${uncaughtText(uncaught)}\n`);
    if (code !== 0) addon.abort(`its process ends with exit code ${code}`);
    try {
      while (addon.leave(1) !== null);
    } catch (error) {
      addon.abort(error instanceof Error ? error.message : String(error));
    }
  };
  process.on("uncaughtExceptionMonitor", note);
  process.on("exit", atExit);
  return () => {
    process.off("uncaughtExceptionMonitor", note);
    process.off("exit", atExit);
  };
}

function uncaughtText(error: unknown): string {
  return BaseError.isInstance(error) ? `${error.name}: ${error.message}` : inspect(error);
}
