/** `mpirun -n R minke train ...`: one run, whose files are those of one process, and one message where it cannot be. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { builtEntry, minke } from "../support/minke.ts";
import { mpiFlavours, occurrences, startRanks } from "../support/mpirun.ts";
import { rankedArguments, resumeOnRanks } from "../support/rankedRun.ts";
import { scratchFolder } from "../support/scratchFolder.ts";
import { fingerprint, historyOf } from "../support/shortRun.ts";
import { writeTrainingText } from "../support/trainingText.ts";

const STEPS = 5;

describe.each(mpiFlavours)("under %s's mpirun", (flavour) => {
  test("two processes leave the files of one, the first alone prints, and one process goes on from them", {
    timeout: 240_000,
  }, async () => {
    const cwd = await scratchFolder();
    const text = await writeTrainingText(cwd);
    const [alone, shared] = [join(cwd, "alone"), join(cwd, "shared")];
    expect((await minke(rankedArguments({ text, run: alone, steps: STEPS }), { cwd })).code).toBe(0);
    const args = rankedArguments({ text, run: shared, steps: STEPS, launch: ["--zero1"] });
    const job = startRanks(2, await builtEntry(), args, { flavour, cwd });
    const { code, stdout, stderr } = await job.finished;
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(occurrences(stdout, '"type":"run.started"')).toBe(1);
    expect(occurrences(stdout, '"type":"step.completed"')).toBe(STEPS);
    expect(await fingerprint(shared, STEPS)).toEqual(await fingerprint(alone, STEPS));
    const losses = async (run: string) => (await historyOf(run)).of("step.completed").map(({ loss }) => loss);
    expect(await losses(shared)).toEqual(await losses(alone));

    const further = ["--set", `steps=${STEPS + 1}`];
    for (const run of [alone, shared])
      expect((await minke(resumeOnRanks(run, further), { cwd })).code).toBe(0);
    expect(await fingerprint(shared, STEPS + 1)).toEqual(await fingerprint(alone, STEPS + 1));
    expect(await job.survivors()).toEqual([]);
  });

  test("three ranks for a layout of four are one message, and leave neither folder nor process", async () => {
    const cwd = await scratchFolder();
    const run = join(cwd, "run");
    const launch = ["--layout", "dp=4"];
    const args = rankedArguments({ text: await writeTrainingText(cwd), run, steps: 2, launch });
    const job = startRanks(3, await builtEntry(), args, { flavour, cwd });
    const { code, stderr } = await job.finished;
    expect(code).not.toBe(0);
    expect(occurrences(stderr, "minke: the layout dp=4,ep=1,pp=1 is for 4 ranks, and there are 3")).toBe(1);
    expect(occurrences(stderr, "minke: ")).toBe(1);
    expect(await readdir(cwd)).not.toContain("run");
    expect(await job.survivors()).toEqual([]);
  });

  test("ranks with different arguments are one message that shows both", async () => {
    const cwd = await scratchFolder();
    const text = await writeTrainingText(cwd);
    const run = join(cwd, "run");
    const of = (seed: string): string[] =>
      rankedArguments({ text, run, steps: 2 }).map((word) => (word === "7" ? seed : word));
    const entry = await builtEntry();
    const second = [":", "-n", "1", process.execPath, entry, ...of("8")];
    const job = startRanks(1, entry, [...of("7"), ...second], { flavour, cwd });
    const { code, stderr } = await job.finished;
    expect(code).not.toBe(0);
    expect(occurrences(stderr, "minke: rank 1 was started with other arguments than rank 0")).toBe(1);
    expect(stderr).toMatch(/rank 0 has .*"seed":7.*rank 1 has .*"seed":8/);
    expect(occurrences(stderr, "minke: ")).toBe(1);
    expect(await readdir(cwd)).not.toContain("run");
  });

  test("--ranks beside a launcher is refused", async () => {
    const cwd = await scratchFolder();
    const launch = ["--ranks", "2"];
    const args = rankedArguments({
      text: await writeTrainingText(cwd),
      run: join(cwd, "run"),
      steps: 2,
      launch,
    });
    const { code, stderr } = await startRanks(2, await builtEntry(), args, { flavour, cwd }).finished;
    expect(code).not.toBe(0);
    expect(occurrences(stderr, "minke: --ranks 2 is given, and mpirun has started 2")).toBe(1);
  });
});
