/** Four ranks on four hosts: the words and the run are those of one process, whatever fails between them. */
import { spawnSync } from "node:child_process";
import { globSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { everyRank, inProcess } from "../../src/parallel/index.ts";
import { canMakeHosts, HOSTS, hostFlags, hosts, onFirstHost, processesOn } from "../support/hosts.ts";
import { builtEntry, minke } from "../support/minke.ts";
import { type Job, occurrences, startRanks } from "../support/mpirun.ts";
import { scratchFolder } from "../support/scratchFolder.ts";
import { fingerprint, historyOf, STEPS, seenSteps, trainArguments } from "../support/shortRun.ts";
import { writeTrainingText } from "../support/trainingText.ts";
import { converse } from "./conversation.ts";

/** From the accident to the launcher's end, on a machine that does other things too. */
const SOON_MS = 10_000;
const LIMIT = 2 ** 28;

let folder: string;
let text: string;

function startOnHosts(program: string, args: readonly string[], ranks: number = HOSTS.length): Job {
  return startRanks(ranks, program, args, { prefix: onFirstHost, flags: hostFlags, cwd: folder });
}

/** A row for each rank in every step, and sums by blocks that four, two and one rank make alike. */
function runArguments(run: string): string[] {
  const shared = ["batchRows=4", "gradientShards=4", "schedule.rampStart=1"];
  return [...trainArguments(text, run, 1, 10), ...shared.flatMap((setting) => ["--set", setting])];
}

let alone: Promise<Record<string, string>> | undefined;

/** What one process leaves after all steps. */
function undisturbed(): Promise<Record<string, string>> {
  alone ??= (async () => {
    const run = join(folder, "alone");
    const { code, stderr } = await minke(runArguments(run), { cwd: folder });
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    return fingerprint(run);
  })();
  return alone;
}

describe.skipIf(!canMakeHosts)("four hosts", { timeout: 180_000 }, () => {
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "minke-hosts-"));
    text = await writeTrainingText(folder);
    hosts("up", String(HOSTS.length));
  });
  afterAll(async () => {
    hosts("down");
    await rm(folder, { recursive: true, force: true });
  });

  test("hear over the network what ranks of one process hear", async () => {
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

  test("train 50 steps to the bits of one process", async () => {
    const run = join(folder, "on-hosts");
    const { code, stderr } = await startOnHosts(await builtEntry(), runArguments(run)).finished;
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(await fingerprint(run)).toEqual(await undisturbed());
  });

  const accidents: readonly [name: string, resumedBy: number, act: (job: Job) => unknown, message: RegExp][] =
    [
      [
        "a killed rank",
        4,
        (job) => killOn("h2", async (id) => job.ranks().includes(id)),
        /exited on signal 9/,
      ],
      [
        "a killed daemon",
        2,
        () => killOn("h2", async (id) => (await programOf(id)) === "orted"),
        /daemon|ORTE/,
      ],
      ["a cut cable", 1, () => hosts("cut", "h3"), /daemon|ORTE/],
    ];

  test.each(accidents)(
    "end soon after %s, and %i ranks go on to the same bits",
    async (name, ranks, act, message) => {
      const run = join(folder, name.replaceAll(" ", "-"));
      const job = startOnHosts(await builtEntry(), [...runArguments(run), "--zero1"]);
      await Promise.race([seenSteps(job.stdout, 12), job.finished]);
      const begin = performance.now();
      await act(job);
      const { code, stdout, stderr } = await job.finished;
      const seconds = performance.now() - begin;
      hosts("join", "h3");
      expect(code).not.toBe(0);
      expect(`${stdout}${stderr}`).toMatch(message);
      expect(await job.survivors()).toEqual([]);
      expect(seconds).toBeLessThan(SOON_MS);

      const again = ["train", "--run", run, "--resume", "--threads", "1", "--json"];
      // From the first host as before: the lock of a process on another host would not be taken over.
      const resumed = startOnHosts(await builtEntry(), again, ranks);
      const outcome = await resumed.finished;
      expect({ code: outcome.code, stderr: outcome.stderr }).toEqual({ code: 0, stderr: "" });
      expect(await fingerprint(run)).toEqual(await undisturbed());
      const steps = (await historyOf(run)).of("step.completed").map(({ step }) => step);
      expect(steps).toEqual(Array.from({ length: STEPS }, (_, i) => i + 1));
    },
  );
});

describe.skipIf(!canMakeHosts)("two hosts whose messages are swallowed", () => {
  beforeAll(() => {
    hosts("up", "2");
    hosts("swallow", "2");
  });
  afterAll(() => void hosts("down"));

  test("end with one line that speaks of firewalls and networks", async () => {
    const scratch = await scratchFolder();
    const script = join(import.meta.dirname, "..", "..", "scripts", "build-mpi.js");
    // As the addon does after a minute, which is too long for a test.
    expect(spawnSync(process.execPath, [script, scratch, "-DFIRST_WORD_SECONDS=3"]).status).toBe(0);
    const addon = globSync(join(scratch, "*openmpi*.node"))[0]!;
    const swallowed = hostFlags.map((word, i) =>
      hostFlags[i - 1] === "btl_tcp_if_include" ? "10.88.0.0/24" : word.replace(",h2,h3", ""),
    );
    const job = startRanks(2, "ending.ts", ["leave", addon], { prefix: onFirstHost, flags: swallowed });
    const { code, stdout, stderr } = await job.finished;
    expect(code).not.toBe(0);
    expect(stdout).not.toContain("has joined");
    expect(occurrences(stderr, "no message came through for 3 s: a firewall, or the wrong network")).toBe(1);
    expect(await job.survivors()).toEqual([]);
  });
});

async function killOn(host: string, isVictim: (id: number) => Promise<boolean>): Promise<void> {
  const victims: number[] = [];
  for (const id of processesOn(host)) if (await isVictim(id)) victims.push(id);
  expect(victims).toHaveLength(1);
  process.kill(victims[0]!, "SIGKILL");
}

async function programOf(id: number): Promise<string> {
  return (await readFile(`/proc/${id}/comm`, "utf8")).trim();
}
