/** Runs on several ranks of one process, as a user starts them: the files of one process, whatever happens on the way. */
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { minke, startMinke } from "../support/minke.ts";
import { nativeIsMissing } from "../support/native.ts";
import { rankedArguments, resumeOnRanks } from "../support/rankedRun.ts";
import { scratchFolder } from "../support/scratchFolder.ts";
import { fingerprint, historyOf, seenSteps } from "../support/shortRun.ts";
import { writeTrainingText } from "../support/trainingText.ts";

const STEPS = 8;

const launches = [
  [["--ranks", "4", "--zero1"], { dp: 4, pp: 1, zero1: true, schedule: null }],
  [["--layout", "dp=2"], { dp: 2, pp: 1, zero1: false, schedule: null }],
  [["--layout", "pp=4"], { dp: 1, pp: 4, zero1: false, schedule: "dualpipe" }],
  [
    ["--layout", "dp=2,pp=2", "--schedule", "dualpipev", "--zero1"],
    { dp: 2, pp: 2, zero1: true, schedule: "dualpipev" },
  ],
] as const;

let folder: string;
let text: string;
let single: Promise<string> | undefined;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "minke-ranks-"));
  text = await writeTrainingText(folder);
});

afterAll(() => rm(folder, { recursive: true, force: true }));

/** The run of one process that all others are held to. */
function alone(): Promise<string> {
  single ??= (async () => {
    const run = join(folder, "alone");
    const { code, stderr } = await minke(rankedArguments({ text, run, steps: STEPS }), { cwd: folder });
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    return run;
  })();
  return single;
}

async function expectSameRun(run: string): Promise<void> {
  expect(await fingerprint(run, STEPS)).toEqual(await fingerprint(await alone(), STEPS));
  const [found, wanted] = [await historyOf(run), await historyOf(await alone())];
  const figures = (history: typeof found) =>
    history
      .of("step.completed")
      .map(({ step, loss, gradNorm, expertLoad }) => ({ step, loss, gradNorm, expertLoad }));
  expect(figures(found)).toHaveLength(STEPS);
  expect(figures(found)).toEqual(figures(wanted));
}

async function layoutIn(run: string): Promise<unknown> {
  return JSON.parse(await readFile(join(run, "run.json"), "utf8")).layout;
}

describe.skipIf(nativeIsMissing)("a run on ranks", () => {
  test("leaves the files and figures of one process, and says what each rank will take", {
    timeout: 240_000,
  }, async () => {
    for (const [launch, layout] of launches) {
      const run = join(folder, `run${launch.join("")}`);
      const { code, stderr } = await minke(rankedArguments({ text, run, steps: STEPS, launch }), {
        cwd: folder,
      });
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
      await expectSameRun(run);
      const [started] = (await historyOf(run)).of("run.started");
      const { dp, pp, zero1 } = layout;
      expect(started?.environment.ranks).toMatchObject({ layout: `dp=${dp},ep=1,pp=${pp}`, zero1 });
      expect(started?.environment.ranks?.tensorBytes).toHaveLength(dp * pp);
      expect(await layoutIn(run)).toEqual({ ...layout, ep: 1 });
    }
    expect(await layoutIn(await alone())).toBeNull();
  });

  test("stops on all ranks after the same step on Ctrl-C, and goes on in any other layout with the same bits", {
    timeout: 240_000,
  }, async () => {
    const run = join(folder, "moving");
    const launch = ["--ranks", "8", "--zero1"];
    const { child, finished } = await startMinke(rankedArguments({ text, run, steps: STEPS, launch }), {
      cwd: folder,
    });
    await seenSteps(child.stdout, 2);
    child.kill("SIGINT");
    const { code, stderr } = await finished;
    expect(code).toBe(130);
    expect(stderr).toBe("\nSIGINT: finishing the step and writing a checkpoint; once more leaves at once\n");
    const [event] = (await historyOf(run)).of("run.interrupted");
    expect(event?.resume).toBe(`minke train --run ${run} --resume --ranks 8 --zero1`);
    expect(await readdir(join(run, "checkpoints"))).toContain(`step-${event?.step}`);
    expect(event?.step).toBeLessThan(STEPS);
    expect((await minke(resumeOnRanks(run, ["--ranks", "2"]), { cwd: folder })).code).toBe(0);
    expect(await layoutIn(run)).toEqual({ dp: 2, ep: 1, pp: 1, zero1: false, schedule: null });
    await expectSameRun(run);
  });

  test("goes on from a checkpoint of one process, and one process goes on from it", {
    timeout: 240_000,
  }, async () => {
    const run = join(folder, "there-and-back");
    const whole = rankedArguments({ text, run, steps: STEPS, saveEvery: 2 });
    const { child, finished } = await startMinke(whole, { cwd: folder });
    await seenSteps(child.stdout, 2);
    child.kill("SIGKILL");
    await finished;
    const onRanks = resumeOnRanks(run, ["--layout", "dp=2,pp=2", "--zero1"]);
    const second = await startMinke(onRanks, { cwd: folder });
    await seenSteps(second.child.stdout, 2);
    second.child.kill("SIGKILL");
    await second.finished;
    expect((await minke(resumeOnRanks(run, []), { cwd: folder })).code).toBe(0);
    expect(await layoutIn(run)).toBeNull();
    await expectSameRun(run);
  });
});

describe("a launch that cannot be", () => {
  test.each<[readonly string[], RegExp]>([
    [["--ranks", "3"], /8 gradient shards cannot be cut into 3 equal parts/],
    [["--layout", "pp=3"], /schedule dualpipe: 3 ranks are odd/],
    [["--layout", "pp=2", "--schedule", "1f1b"], /schedule 1f1b cannot train MTP modules/],
    [["--layout", "pp=2", "--schedule", "fifo"], /--schedule "fifo" is not one of 1f1b, zb, dualpipe/],
    [["--layout", "pp=4", "--schedule", "dualpipev"], /4 layers do not make 8 stages/],
    [["--ranks", "2", "--layout", "dp=4"], /dp=4,ep=1,pp=1 is for 4 ranks, and there are 2/],
    [["--layout", "tp=2"], /"tp=2" is no layout/],
    [["--layout", "dp=4,ep=4", "--ranks-per-node", "3"], /4 ranks share the experts, 3 of them on a node/],
    [["--ranks", "0"], /--ranks "0" is not a whole number of at least 1|--ranks "0"/],
  ])("is one message, and leaves no folder: %j", async (launch, message) => {
    const cwd = await scratchFolder();
    const run = join(cwd, "run");
    const { code, stderr } = await minke(
      rankedArguments({ text: await writeTrainingText(cwd), run, steps: 2, launch }),
      { cwd },
    );
    expect(code).toBe(1);
    expect(stderr).toMatch(message);
    expect(stderr.match(/ {2}why: /g)).toHaveLength(1);
    expect(stderr.match(/ {2}fix: /g)).toHaveLength(1);
    expect(await readdir(cwd)).not.toContain("run");
  });
});
