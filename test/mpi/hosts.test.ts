/** Four ranks on four hosts: what they hear, and how the job ends when a rank, a daemon or a cable fails. */
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { everyRank, inProcess } from "../../src/parallel/index.ts";
import { canMakeHosts, HOSTS, hostFlags, hosts, onFirstHost, processesOn } from "../support/hosts.ts";
import { type Job, startRanks } from "../support/mpirun.ts";
import { converse } from "./conversation.ts";

const SOON_MS = 10_000;
const LIMIT = 2 ** 28;

function startOnHosts(program: string, args: readonly string[]): Job {
  return startRanks(HOSTS.length, program, args, { prefix: onFirstHost, flags: hostFlags });
}

describe.skipIf(!canMakeHosts)("four hosts", () => {
  beforeAll(() => void hosts("up", "4"));
  afterAll(() => void hosts("down"));

  test("their ranks hear over the network what ranks of one process hear", async () => {
    const sent = HOSTS.map((host) => Number(hosts("bytes", host)));
    const { code, stdout, stderr } = await startOnHosts("converse.ts", ["17"]).finished;
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const lines = stdout.trimEnd().split("\n");
    const heard = lines.map((line): { rank: number; digest: string } => JSON.parse(line));
    const ranks = inProcess(4, { backend: "native", limitBytes: LIMIT, threads: 1 });
    const expected = await everyRank(ranks, (rank) => converse(rank, 17));
    for (const { device } of ranks) await device.dispose();
    expect(heard.toSorted((a, b) => a.rank - b.rank)).toEqual(
      expected.map((digest, rank) => ({ rank, digest })),
    );
    // Not through shared memory: each host has sent at least the arrays of one sum.
    for (const [i, host] of HOSTS.entries())
      expect(Number(hosts("bytes", host)) - sent[i]!).toBeGreaterThan(2e5);
  });

  const accidents: readonly [name: string, act: (job: Job) => void, message: RegExp][] = [
    ["a rank that is killed", (job) => killOn("h2", (id) => job.ranks().includes(id)), /exited on signal 9/],
    [
      "a host's daemon that is killed",
      () => killOn("h2", (id) => readFileSync(`/proc/${id}/comm`, "utf8").trim() === "orted"),
      /ORTE|daemon|lost/,
    ],
    ["a cable that is cut", () => void hosts("cut", "h3"), /ORTE|daemon|lost/],
  ];

  test.each(accidents)("%s ends the job on all of them", async (_, act, message) => {
    const job = startOnHosts("ending.ts", ["stay"]);
    while (job.ranks().length < HOSTS.length) await sleep(50);
    await sleep(2000);
    const begin = performance.now();
    act(job);
    try {
      const { code, stdout, stderr } = await job.finished;
      expect(code).not.toBe(0);
      expect(performance.now() - begin).toBeLessThan(SOON_MS);
      expect(`${stdout}${stderr}`).toMatch(message);
      expect(await job.survivors()).toEqual([]);
    } finally {
      hosts("join", "h3");
    }
  });
});

function killOn(host: string, isVictim: (id: number) => boolean): void {
  const victims = processesOn(host).filter(isVictim);
  expect(victims).toHaveLength(1);
  process.kill(victims[0]!, "SIGKILL");
}
