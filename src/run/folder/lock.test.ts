import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { startModule } from "../../../test/support/childProcess.ts";
import { RunError } from "../../base/index.ts";
import { acquireLock, type LockOwner, mayLive, readLock, releaseLock } from "./lock.ts";
import { isRunning, thisProcess } from "./processIdentity.ts";

let folder: string;
let path: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "minke-lock-"));
  path = join(folder, "lock");
});
afterEach(() => rm(folder, { recursive: true }));

/** A process that has lived and is gone. */
async function deadOwner(): Promise<LockOwner> {
  const child = startModule("");
  const pid = child.pid!;
  await once(child, "exit");
  return { pid, startTime: "long ago", host: hostname(), since: "2026-01-01T00:00:00.000Z", token: "dead" };
}

const leave = (owner: LockOwner) => writeFile(path, JSON.stringify(owner));

describe("acquireLock", () => {
  test("writes who owns it, and gives it back without a trace", async () => {
    const lock = await acquireLock(path);
    expect(lock.takenFrom).toBeNull();
    expect(JSON.parse(await readFile(path, "utf8"))).toEqual(lock.owner);
    expect(lock.owner).toMatchObject({ pid: process.pid, host: hostname() });
    await releaseLock(lock);
    expect(await readdir(folder)).toEqual([]);
  });

  test("a second run in the folder is refused by name, also within one process", async () => {
    const lock = await acquireLock(path);
    const error = (await acquireLock(path).catch((reason: unknown) => reason)) as RunError;
    expect(error).toBeInstanceOf(RunError);
    expect(error.what).toBe(
      `${path} is held by process ${process.pid} on ${hostname()} since ${lock.owner.since}`,
    );
    expect(error.fields["owner"]).toEqual(lock.owner);
    expect(await readdir(folder)).toEqual(["lock"]);
  });

  test("the lock of a dead process is taken over and the dead owner named", async () => {
    const dead = await deadOwner();
    await leave(dead);
    const lock = await acquireLock(path);
    expect(lock.takenFrom).toEqual(dead);
    expect(await readLock(path)).toEqual(lock.owner);
    expect(await readdir(folder)).toEqual(["lock"]);
  });

  test("a living process with the dead owner's id is not mistaken for it", async () => {
    await leave({ ...(await deadOwner()), pid: process.pid, startTime: "another boot:1" });
    expect((await acquireLock(path)).takenFrom?.pid).toBe(process.pid);
  });

  test("of many that find the same dead owner exactly one takes over", async () => {
    await leave(await deadOwner());
    const attempts = await Promise.allSettled(Array.from({ length: 12 }, () => acquireLock(path)));
    const winners = attempts.filter((attempt) => attempt.status === "fulfilled");
    expect(winners).toHaveLength(1);
    expect(await readLock(path)).toEqual(winners[0]!.value.owner);
    for (const attempt of attempts) {
      if (attempt.status === "rejected") expect(attempt.reason).toBeInstanceOf(RunError);
    }
  });

  test("of many that come one after the other none takes the lock from the one who has taken over", async () => {
    const dead = await deadOwner();
    for (let round = 0; round < 12; round++) {
      await leave(dead);
      const attempts = Array.from({ length: 40 }, async (_, delay) => {
        // Each comes a little later, so that some read the dead owner just before another replaces it.
        for (let turn = 0; turn < delay; turn++) await stat(folder);
        return acquireLock(path);
      });
      const winners = (await Promise.allSettled(attempts)).filter(
        (attempt) => attempt.status === "fulfilled",
      );
      expect(winners).toHaveLength(1);
      await releaseLock(winners[0]!.value);
    }
  });

  test("a takeover that was itself killed does not lock the folder for ever", async () => {
    await leave(await deadOwner());
    await writeFile(`${path}.takeover`, JSON.stringify({ ...(await deadOwner()), token: "dead too" }));
    expect((await acquireLock(path)).takenFrom?.token).toBe("dead");
    expect(await readdir(folder)).toEqual(["lock"]);
  });

  test("an owner on another machine is never declared dead", async () => {
    await leave({ ...(await deadOwner()), host: "elsewhere" });
    const error = (await acquireLock(path).catch((reason: unknown) => reason)) as RunError;
    expect(error.fix).toContain(`delete ${path}`);
    expect(await readLock(path)).toMatchObject({ host: "elsewhere" });
  });

  test("a file that is no lock is not overwritten", async () => {
    await writeFile(path, "keep me");
    await expect(acquireLock(path)).rejects.toThrow(`${path} is not a lock`);
    expect(await readFile(path, "utf8")).toBe("keep me");
  });

  test("a read-only folder is named", async () => {
    await expect(acquireLock("/sys/kernel/lock")).rejects.toThrow("cannot lock the run folder");
  });
});

describe("releaseLock", () => {
  test("leaves a lock alone that somebody else has taken over", async () => {
    const lock = await acquireLock(path);
    const other = { ...lock.owner, token: "another" };
    await leave(other);
    await releaseLock(lock);
    expect(await readLock(path)).toEqual(other);
  });
});

describe("the owner's life", () => {
  test("this process runs, and a process that has ended does not", async () => {
    expect(isRunning(thisProcess())).toBe(true);
    expect(mayLive(await deadOwner())).toBe(false);
  });

  test("without a start time a used id counts as alive", () => {
    expect(isRunning({ pid: process.pid, startTime: null })).toBe(true);
    expect(isRunning({ pid: 1, startTime: null })).toBe(true);
  });

  test("a killed owner's lock is stale at once", async () => {
    const child = startModule("setInterval(() => {}, 1000)");
    const owner = { ...(await deadOwner()), pid: child.pid!, startTime: null };
    expect(mayLive(owner)).toBe(true);
    child.kill("SIGKILL");
    await once(child, "exit");
    expect(mayLive(owner)).toBe(false);
  });
});
