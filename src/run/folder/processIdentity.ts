/** Which process wrote something, told so that a later process with the same id is not taken for it. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { errorCode } from "../files/fileErrors.ts";

export interface ProcessIdentity {
  readonly pid: number;
  /** Opaque, equal for equal processes; null where the system does not tell. */
  readonly startTime: string | null;
}

export function thisProcess(): ProcessIdentity {
  return { pid: process.pid, startTime: startTimeOf(process.pid) };
}

/** True if this very process still runs on this machine; where start times are not known, if its id is in use. */
export function isRunning({ pid, startTime }: ProcessIdentity): boolean {
  if (!isIdInUse(pid)) return false;
  return startTime === null || startTimeOf(pid) === startTime;
}

function isIdInUse(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    if (errorCode(error) === "ESRCH") return false;
    // Somebody else's process: it may not be signalled, so it is there.
    if (errorCode(error) === "EPERM") return true;
    throw error;
  }
}

function startTimeOf(pid: number): string | null {
  if (process.platform === "linux") return linuxStartTime(pid);
  if (process.platform === "win32") return null;
  try {
    const text = execFileSync("ps", ["-o", "lstart=", "-p", String(pid)], {
      encoding: "utf8",
      env: { ...process.env, LC_ALL: "C" },
    });
    return text.trim() || null;
  } catch (error) {
    // ps leaves with 1 for a process that is gone, and may be missing in a container.
    if (error instanceof Error) return null;
    throw error;
  }
}

/** Clock ticks since the boot that the boot's id names; null for a process that is gone. */
function linuxStartTime(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // Field 22 of proc(5); the command's name in field 2 may itself hold blanks and brackets.
    const afterName = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
    return `${boot}:${afterName[22 - 3]}`;
  } catch (error) {
    if (errorCode(error) === "ENOENT" || errorCode(error) === "ESRCH") return null;
    throw error;
  }
}
