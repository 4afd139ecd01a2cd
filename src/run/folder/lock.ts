/**
 * One owner per run folder: a file that names the process which writes there.
 *
 * The lock appears with its content in one step (a hard link to a finished file), so that nobody ever reads half of
 * one. An owner that died without giving it back is recognised by process id and start time (ids are used again) and
 * is replaced under a second lock, `<path>.takeover`: of two processes that find the same dead owner, one wins.
 * This file knows nothing of runs; folder.ts does.
 */
import { randomUUID } from "node:crypto";
import { link, readFile, rename, rm, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { RunError } from "../../base/index.ts";
import { errorCode, explained } from "../files/fileErrors.ts";
import { isRunning, type ProcessIdentity, thisProcess } from "./processIdentity.ts";

export interface LockOwner extends ProcessIdentity {
  readonly host: string;
  /** When the lock was taken: ISO 8601, UTC. */
  readonly since: string;
  /** Of this lock alone: two locks of one process differ. */
  readonly token: string;
}

export interface Lock {
  readonly path: string;
  readonly owner: LockOwner;
  /** The dead owner from whom the lock was taken over; null if there was none. */
  readonly takenFrom: LockOwner | null;
}

/** @throws {RunError} with field `owner` if a process that lives, or may live, holds the lock */
export async function acquireLock(path: string): Promise<Lock> {
  const owner = { ...thisProcess(), host: hostname(), since: new Date().toISOString(), token: randomUUID() };
  const finished = `${path}.${owner.token}`;
  return explained(path, "lock the run folder", async () => {
    await writeFile(finished, `${JSON.stringify(owner)}\n`, { flag: "wx" });
    try {
      if (await linkIfAbsent(finished, path)) return { path, owner, takenFrom: null };
      const takenFrom = await takeOver(finished, path);
      return takenFrom === null ? await acquireLock(path) : { path, owner, takenFrom };
    } finally {
      await rm(finished, { force: true });
    }
  });
}

/** Gives the lock back; a lock that another process has taken over meanwhile is left alone. */
export async function releaseLock(lock: Lock): Promise<void> {
  const owner = await readLock(lock.path);
  if (owner?.token === lock.owner.token) await rm(lock.path, { force: true });
}

/** Who holds the lock, dead or alive; null if nobody does. */
export async function readLock(path: string): Promise<LockOwner | null> {
  try {
    return JSON.parse(await readFile(path, "utf8")) as LockOwner;
  } catch (error) {
    if (errorCode(error) === "ENOENT") return null;
    if (!(error instanceof SyntaxError)) throw error;
    throw new RunError(`${path} is not a lock`, {
      why: "a lock names the process that writes into the run folder, and this file does not",
      fix: `make sure that no training writes into the folder, then delete ${path}`,
      fields: { path },
      cause: error,
    });
  }
}

/** False only for a process of this machine that is gone: of another machine nothing can be known. */
export function mayLive(owner: LockOwner): boolean {
  return owner.host !== hostname() || isRunning(owner);
}

/** @returns the dead owner who was replaced; null if the lock is free by now */
async function takeOver(finished: string, path: string): Promise<LockOwner | null> {
  const found = await readLock(path);
  if (found === null) return null;
  if (mayLive(found)) throw heldError(path, found);
  const guard = await acquireLock(`${path}.takeover`);
  try {
    // Another process may have replaced the dead owner before this one held the guard.
    const dead = await readLock(path);
    if (dead?.token !== found.token) return null;
    await rename(finished, path);
    return found;
  } finally {
    await releaseLock(guard);
  }
}

async function linkIfAbsent(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (error) {
    const code = errorCode(error) ?? "";
    if (code === "EEXIST") return false;
    // The file to link was just written beside it, so this is not about rights.
    if (!["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS"].includes(code)) throw error;
    throw new RunError(`the file system of ${to} knows no hard links`, {
      why: "a lock appears as a hard link, in one piece; FAT and some network drives cannot do that",
      fix: "choose a folder on another disk with --run DIR",
      fields: { path: to, code },
      cause: error,
    });
  }
}

function heldError(path: string, owner: LockOwner): RunError {
  const { pid, host, since } = owner;
  const isHere = host === hostname();
  return new RunError(`${path} is held by process ${pid} on ${host} since ${since}`, {
    why: isHere
      ? "two runs in one folder would overwrite each other's events and checkpoints"
      : "two runs in one folder would destroy each other, and from here nobody can see whether that process lives",
    fix: isHere
      ? "wait for it, stop it with Ctrl-C, or choose another folder with --run DIR"
      : `if that process is gone, delete ${path}; otherwise choose another folder with --run DIR`,
    fields: { path, owner },
  });
}
