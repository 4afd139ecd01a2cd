/** `minke train` as several processes: the files of one, or one message that says what is wrong with the launch. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { builtEntry, minke } from "../support/minke.ts";
import { type Job, mpiFlavours, occurrences, startRanks } from "../support/mpirun.ts";
import { outcomeOf, rankedArguments } from "../support/rankedRun.ts";
import { writeTrainingText } from "../support/trainingText.ts";

const STEPS = 6;

let folder: string;
let text: string;
let alone: Promise<unknown> | undefined;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "minke-mpi-"));
  text = await writeTrainingText(folder);
});

afterAll(() => rm(folder, { recursive: true, force: true }));

function runArguments(run: string, launch: readonly string[] = []): string[] {
  return rankedArguments({ text, run, steps: STEPS, launch });
}

function onOneProcess(): Promise<unknown> {
  alone ??= (async () => {
    const run = join(folder, "alone");
    const { code, stderr } = await minke(runArguments(run), { cwd: folder });
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    return outcomeOf(run, STEPS);
  })();
  return alone;
}

describe.each(mpiFlavours)("under %s", { timeout: 180_000 }, (flavour) => {
  test.each([
    [1, []],
    [2, ["--zero1"]],
    [4, ["--layout", "dp=4"]],
    [4, ["--layout", "dp=4,ep=2"]],
    [4, ["--layout", "dp=4,ep=4", "--ranks-per-node", "2", "--zero1"]],
    [2, ["--layout", "pp=2", "--schedule", "dualpipev"]],
    [4, ["--layout", "dp=2,pp=2", "--schedule", "dualpipe", "--zero1"]],
    [4, ["--layout", "dp=2,ep=2,pp=2", "--schedule", "dualpipe", "--zero1"]],
  ] as const)("%i processes leave what one leaves: %j", async (ranks, launch) => {
    const run = join(folder, `${flavour}-${ranks}${launch.join("")}`);
    const job = startRanks(ranks, await builtEntry(), runArguments(run, launch), { flavour, cwd: folder });
    const { code, stderr } = await job.finished;
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(await outcomeOf(run, STEPS)).toEqual(await onOneProcess());
    expect(await job.survivors()).toEqual([]);
  });
});

describe.skipIf(!mpiFlavours.includes("openmpi"))("a wrong launch is one message and leaves nothing:", () => {
  async function expectRefusal(job: Job, message: RegExp): Promise<void> {
    const { code, stderr } = await job.finished;
    expect(code).not.toBe(0);
    expect(stderr).toMatch(message);
    expect(occurrences(stderr, "  fix: ")).toBe(1);
    expect(await job.survivors()).toEqual([]);
  }

  test("three ranks for a layout of four", async () => {
    const args = runArguments(join(folder, "three"), ["--layout", "dp=4"]);
    await expectRefusal(startRanks(3, await builtEntry(), args, { cwd: folder }), /4.*ranks|ranks.*4/);
  });

  test("--ranks beside mpirun", async () => {
    const args = runArguments(join(folder, "both"), ["--ranks", "2"]);
    await expectRefusal(startRanks(2, await builtEntry(), args, { cwd: folder }), /mpirun has started 2/);
  });

  test("ranks with different settings", async () => {
    const args = runArguments(join(folder, "differ"));
    const others = ["-n", "1", process.execPath, await builtEntry(), ...args, "--set", "optimizer.beta1=0.8"];
    const job = startRanks(1, await builtEntry(), [...args, ":", ...others], { cwd: folder });
    await expectRefusal(job, /rank 1 was started with other arguments than rank 0/);
  });

  test("ranks with different data", async () => {
    const args = runArguments(join(folder, "data"));
    const others = args.map((word) => (word === text ? `${text}.other` : word));
    const launch = [...args, ":", "-n", "1", process.execPath, await builtEntry(), ...others];
    const job = startRanks(1, await builtEntry(), launch, { cwd: folder });
    await expectRefusal(job, /rank 1 was started with other arguments than rank 0/);
  });
});
