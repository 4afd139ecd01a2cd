/** How a job of several processes ends, well and badly: never in silence, never with a process left over. */
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { symlinkSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { mpiAddonPath, mpiFlavours, occurrences, startRanks } from "../support/mpirun.ts";
import { scratchFolder } from "../support/scratchFolder.ts";

/** The second that Open MPI grants a killed process included. */
const SOON_MS = 10_000;

describe.each(mpiFlavours)("with %s", (flavour) => {
  test("ranks that leave wait for the last one, and all end well", async () => {
    const { code, stdout } = await startRanks(4, "ending.ts", ["leave"], { flavour }).finished;
    const lines = stdout.trimEnd().split("\n");
    expect(code).toBe(0);
    expect(lines.slice(0, 4).toSorted()).toEqual([0, 1, 2, 3].map((rank) => `rank ${rank} of 4 has joined`));
    expect(lines.slice(4).toSorted()).toEqual([0, 1, 2, 3].map((rank) => `rank ${rank} has left`));
  });

  test("a program that forgets to leave ends well all the same", async () => {
    const job = startRanks(3, "ending.ts", ["end"], { flavour });
    expect((await job.finished).code).toBe(0);
    expect(await job.survivors()).toEqual([]);
  });

  test("an uncaught error of one rank is told once and ends all ranks", async () => {
    const job = startRanks(3, "ending.ts", ["throw"], { flavour });
    await once(job.stdout, "data");
    const begin = performance.now();
    const { code, stderr } = await job.finished;
    expect(code).not.toBe(0);
    expect(performance.now() - begin).toBeLessThan(SOON_MS);
    expect(occurrences(stderr, "Error: rank 1 has had enough")).toBe(1);
    expect(occurrences(stderr, "ends the job: its process ends with exit code 1")).toBe(1);
    expect(await job.survivors()).toEqual([]);
  });

  test("the death of one rank by a signal ends all ranks with the launcher's message", async () => {
    const job = startRanks(3, "ending.ts", ["stay"], { flavour });
    const victim = await lastRank(job, 3);
    const begin = performance.now();
    process.kill(victim, "SIGKILL");
    const { code, stdout, stderr } = await job.finished;
    expect(code).not.toBe(0);
    expect(performance.now() - begin).toBeLessThan(SOON_MS);
    expect(`${stdout}${stderr}`).toMatch(flavour === "openmpi" ? /exited on signal 9/ : /EXIT CODE: 9/);
    expect(await job.survivors()).toEqual([]);
  });

  test("MPI is started only once in a process", async () => {
    const { code, stderr } = await startRanks(1, "ending.ts", ["twice"], { flavour }).finished;
    expect(code).not.toBe(0);
    expect(stderr).toContain("can be started only once");
  });
});

const wrongPairs =
  mpiFlavours.length === 2
    ? ([
        ["mpich", "openmpi"],
        ["openmpi", "mpich"],
      ] as const)
    : [];

test.each(wrongPairs)("%s's launcher with %s's addon is one clear message", async (launcher, library) => {
  const addon = mpiAddonPath(library)!;
  const job = startRanks(3, "ending.ts", ["leave", addon], { flavour: launcher });
  const { code, stdout, stderr } = await job.finished;
  expect(code).not.toBe(0);
  expect(stdout).not.toContain("has joined");
  expect(occurrences(stderr, "MPI sees 1 rank where the launcher started 3\n  why:")).toBe(1);
  expect(stderr).toContain("fix: start the job with");
  expect(await job.survivors()).toEqual([]);
});

test("without mpicc the build says in one line what to install, and is no error of npm's", async () => {
  const root = join(import.meta.dirname, "..", "..");
  // A PATH with Node alone.
  const bin = await scratchFolder();
  symlinkSync(process.execPath, join(bin, "node"));
  const build = `import("${join(root, "scripts", "build-mpi.js")}").then((m) => console.log(m.buildMpi(${JSON.stringify(root)})))`;
  const env = { PATH: bin };
  const { status, stdout, stderr } = spawnSync(process.execPath, ["-e", build], { env, encoding: "utf8" });
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  const lines = stdout.trimEnd().split("\n");
  expect(lines).toHaveLength(2);
  expect(lines[0]).toMatch(/^MPI addon not built.*apt install openmpi-bin libopenmpi-dev.*build-mpi\.js$/);
  expect(lines[1]).toBe("no mpicc");
});

/** The highest process id once all ranks live and have had time to join. */
async function lastRank(job: { ranks(): readonly number[] }, ranks: number): Promise<number> {
  while (job.ranks().length < ranks) await sleep(50);
  await sleep(1000);
  return Math.max(...job.ranks());
}
