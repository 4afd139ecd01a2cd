/** The same bits: with one and two threads, on repeat, and after every kind of end. */
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { minke, startMinke } from "../support/minke.ts";
import { nativeIsMissing } from "../support/native.ts";
import {
  fingerprint,
  historyOf,
  resumeArguments,
  STEPS,
  seenSteps,
  surviveDeaths,
  trainArguments,
} from "../support/shortRun.ts";
import { writeTrainingText } from "../support/trainingText.ts";

let folder: string;
let text: string;
let finished: Promise<string> | undefined;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "minke-resume-"));
  text = await writeTrainingText(folder);
});

afterAll(() => rm(folder, { recursive: true, force: true }));

/** The run that nothing disturbed, with one thread: made by the first test that asks for it. */
function undisturbed(): Promise<string> {
  finished ??= (async () => {
    const run = join(folder, "undisturbed");
    const { code, stderr } = await minke(trainArguments(text, run, 1), { cwd: folder });
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    return run;
  })();
  return finished;
}

/** Bits and history of a run against those of the undisturbed one. */
async function expectSameRun(run: string): Promise<void> {
  expect(await fingerprint(run)).toEqual(await fingerprint(await undisturbed()));
  const [found, wanted] = [await historyOf(run), await historyOf(await undisturbed())];
  const steps = found.of("step.completed");
  expect(steps.map(({ step }) => step)).toEqual(Array.from({ length: STEPS }, (_, i) => i + 1));
  expect(steps.map(({ loss }) => loss)).toEqual(wanted.of("step.completed").map(({ loss }) => loss));
  expect(found.of("run.started")).toHaveLength(1);
  expect(found.of("run.completed")).toHaveLength(1);
}

describe.skipIf(nativeIsMissing)("50 steps of micro", () => {
  test("give the same bits with one thread and with two", { timeout: 120_000 }, async () => {
    const run = join(folder, "two-threads");
    expect((await minke(trainArguments(text, run, 2), { cwd: folder })).code).toBe(0);
    await expectSameRun(run);
  });

  test("give the same bits again, and others with another seed", { timeout: 120_000 }, async () => {
    const [again, other] = [join(folder, "again"), join(folder, "other")];
    expect((await minke(trainArguments(text, again, 2), { cwd: folder })).code).toBe(0);
    await expectSameRun(again);
    const otherSeed = trainArguments(text, other, 2).map((word) => (word === "7" ? "8" : word));
    expect((await minke(otherSeed, { cwd: folder })).code).toBe(0);
    expect(await fingerprint(other)).not.toEqual(await fingerprint(again));
  });

  test("give the same bits when Ctrl-C stops them and --resume goes on", { timeout: 120_000 }, async () => {
    const run = join(folder, "interrupted");
    const { child, finished } = await startMinke(trainArguments(text, run, 2), { cwd: folder });
    await seenSteps(child.stdout, 10);
    child.kill("SIGINT");
    const { code, stderr, stdout } = await finished;
    expect(code).toBe(130);
    expect(stderr).toContain("SIGINT: finishing the step and writing a checkpoint");
    expect(stdout).toContain('"type":"run.interrupted"');
    const [event] = (await historyOf(run)).of("run.interrupted");
    expect(event).toMatchObject({ signal: "SIGINT", resume: `minke train --run ${run} --resume` });
    expect(event?.step).toBeLessThan(STEPS);
    expect(event?.checkpoint).toBe(`checkpoints/step-${event?.step}`);
    expect((await minke(resumeArguments(run, 1), { cwd: folder })).code).toBe(0);
    await expectSameRun(run);
  });

  test("give the same bits when they are killed six times, also while a checkpoint is written", {
    timeout: 240_000,
  }, async () => {
    const lives = join(folder, "lives");
    await mkdir(lives);
    const { deaths, halfWritten, runs } = await surviveDeaths(6, lives, text, 20261121);
    console.log(`${deaths} deaths, ${halfWritten} of them while a checkpoint was written`);
    for (const run of runs) await expectSameRun(run);
    const resumed = await Promise.all(
      runs.map(async (run) => (await historyOf(run)).of("run.resumed").length),
    );
    expect(Math.max(...resumed)).toBeGreaterThan(0);
  });
});

describe.skipIf(nativeIsMissing)("a second Ctrl-C", () => {
  test("leaves at once, and the run can still be resumed to the same bits", {
    timeout: 120_000,
  }, async () => {
    const run = join(folder, "twice");
    const { child, finished } = await startMinke(trainArguments(text, run, 2), { cwd: folder });
    await seenSteps(child.stdout, 6);
    // SIGTERM counts as Ctrl-C; two equal signals could become one on their way.
    child.kill("SIGINT");
    child.kill("SIGTERM");
    const { code, stdout } = await finished;
    expect(code).toBe(130);
    expect(stdout).not.toContain("run.interrupted");
    expect((await minke(resumeArguments(run, 2), { cwd: folder })).code).toBe(0);
    await expectSameRun(run);
  });
});
