/** What a run leaves behind when a rank fails in its middle: the reason in its log, and a folder from which it goes on. */
import { join } from "node:path";
import { expect, test } from "vitest";
import { minke } from "../support/minke.ts";
import { mpiFlavours, occurrences, startRanks } from "../support/mpirun.ts";
import { rankedArguments, resumeOnRanks } from "../support/rankedRun.ts";
import { scratchFolder } from "../support/scratchFolder.ts";
import { historyOf, seenSteps } from "../support/shortRun.ts";
import { writeTrainingText } from "../support/trainingText.ts";

/** From the last step to the launcher's end, on a machine that does other things too. */
const SOON_MS = 10_000;
const STEPS = 6;

type Failure = readonly [way: string, rank: number, ranks: number, reason: RegExp];

const throwsElsewhere: Failure = ["throws", 1, 4, /^rank 1 failed: the disk of rank 1 is gone/];
const breaksOnFirst: Failure = [
  ...(["breaks", 0, 2] as const),
  /awaitMessages.*rank 0 got 8 bytes from rank 0 .* where 12 were awaited/,
];
const others: readonly Failure[] = [
  ["throws", 0, 2, /^the disk of rank 0 is gone/],
  ["breaks", 1, 2, /^rank 1 failed: awaitMessages.*rank 1 got 8 bytes from rank 1 .* where 12 were awaited/],
  ["exits", 1, 2, /^rank 1 failed: its process ends with exit code 3/],
];
/** The launchers differ in how they end ranks, not in what ranks do: one of them is tried in every way. */
const failures = mpiFlavours.flatMap((flavour, i) =>
  [throwsElsewhere, breaksOnFirst, ...(i === 0 ? others : [])].map((one) => [flavour, ...one] as const),
);

test.each(failures)(
  "under %s a rank that %s in mid-run (rank %i of %i) is in the log with its reason",
  { timeout: 120_000 },
  async (flavour, way, rank, ranks, reason) => {
    const cwd = await scratchFolder();
    const run = join(cwd, "run");
    const text = await writeTrainingText(cwd);
    const args = rankedArguments({ text, run, steps: STEPS, saveEvery: 1 });
    const job = startRanks(ranks, "failing.ts", [way, String(rank), ...args], { flavour, cwd });
    await Promise.race([seenSteps(job.stdout, 2), job.finished]);
    const begin = performance.now();
    const { code, stderr } = await job.finished;
    expect(performance.now() - begin).toBeLessThan(SOON_MS);
    expect(code).not.toBe(0);
    expect(occurrences(stderr, "ends the job: ")).toBe(1);
    expect(await job.survivors()).toEqual([]);

    const history = await historyOf(run);
    expect(history.of("step.completed").map(({ step }) => step)).toEqual([1, 2]);
    expect(history.of("run.failed").map(({ step, error }) => [step, error.what])).toEqual([
      [2, expect.stringMatching(reason)],
    ]);
    // The lock is free, and the checkpoints are whole.
    if (ranks === 4)
      expect(await minke(resumeOnRanks(run, []), { cwd })).toMatchObject({ code: 0, stderr: "" });
  },
);

test.skipIf(mpiFlavours.length === 0)(
  "what the first rank alone cannot do it says itself, once, however long it has to write about it",
  { timeout: 120_000 },
  async () => {
    const cwd = await scratchFolder();
    const run = join(cwd, "run");
    const text = await writeTrainingText(cwd);
    const args = rankedArguments({ text, run, steps: STEPS, saveEvery: 2 });
    const flavour = mpiFlavours[0]!;
    const job = startRanks(2, "failing.ts", ["is full", "0", ...args], { flavour, cwd });
    const { code, stderr } = await job.finished;
    expect(code).not.toBe(0);
    expect(occurrences(stderr, "minke: the disk of rank 0 is full\n  why: no space is left on it")).toBe(1);
    expect(stderr).not.toContain("ends the job");
    expect(await job.survivors()).toEqual([]);
    const [failed, ...more] = (await historyOf(run)).of("run.failed");
    expect([failed!.error.what, more]).toEqual(["the disk of rank 0 is full", []]);
  },
);
