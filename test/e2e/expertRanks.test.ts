/** Runs whose ranks share the experts, as a user starts them: the files of one process, in and out of any layout. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { minke, startMinke } from "../support/minke.ts";
import { nativeIsMissing } from "../support/native.ts";
import { rankedArguments, resumeOnRanks } from "../support/rankedRun.ts";
import { fingerprint, historyOf, seenSteps } from "../support/shortRun.ts";
import { writeTrainingText } from "../support/trainingText.ts";

const STEPS = 8;

let folder: string;
let text: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "minke-expert-ranks-"));
  text = await writeTrainingText(folder);
});

afterAll(() => rm(folder, { recursive: true, force: true }));

/** Files, losses, loads, evaluations and samples of a run. */
async function everythingOf(run: string): Promise<unknown> {
  const history = await historyOf(run);
  const figures = history
    .of("step.completed")
    .map(({ step, loss, gradNorm, expertLoad }) => ({ step, loss, gradNorm, expertLoad }));
  const evaluations = history
    .of("evaluation.completed")
    .map(({ step, loss, bitsPerByte, tokens }) => ({ step, loss, bitsPerByte, tokens }));
  const samples = history.of("sample.generated").map(({ step, prompt, text }) => ({ step, prompt, text }));
  return { files: await fingerprint(run, STEPS), figures, evaluations, samples };
}

describe.skipIf(nativeIsMissing)("a run whose ranks share the experts", () => {
  const prompts = ["--set", 'sample.prompts=["the "]', "--set", "sample.maxTokens=8"];
  let single: Promise<unknown> | undefined;

  /** What all others are held to. */
  function onOneProcess(): Promise<unknown> {
    single ??= (async () => {
      const alone = join(folder, "alone");
      const plain = rankedArguments({ text, run: alone, steps: STEPS, launch: prompts });
      expect(await minke(plain, { cwd: folder })).toMatchObject({ code: 0, stderr: "" });
      return everythingOf(alone);
    })();
    return single;
  }

  test.each([
    [
      "dp=4,ep=2,pp=1 --zero1",
      ["--layout", "dp=4,ep=2", "--zero1"],
      ["--ranks", "2", "--layout", "dp=2,ep=2"],
      { dp: 2, ep: 2, pp: 1 },
    ],
    [
      "dp=2,ep=2,pp=2 --schedule dualpipe --zero1",
      ["--layout", "dp=2,ep=2,pp=2", "--zero1"],
      ["--layout", "dp=4,ep=2,pp=2", "--schedule", "dualpipev"],
      { dp: 4, ep: 2, pp: 2, schedule: "dualpipev" },
    ],
  ])(
    "leaves the files, figures, evaluations and samples of one process, from %s to another layout",
    {
      timeout: 400_000,
    },
    async (flags, begun, resumed, layout) => {
      const run = join(folder, `shared ${flags}`.replaceAll(" ", "-"));
      const launch = [...prompts, ...begun];
      const first = await startMinke(rankedArguments({ text, run, steps: STEPS, launch }), { cwd: folder });
      await seenSteps(first.child.stdout, 2);
      first.child.kill("SIGINT");
      expect((await first.finished).code).toBe(130);
      const [event] = (await historyOf(run)).of("run.interrupted");
      expect(event?.resume).toBe(`minke train --run ${run} --resume --ranks 4 --layout ${flags}`);
      expect(event?.step).toBeLessThan(STEPS);
      const elsewhere = resumeOnRanks(run, resumed);
      expect(await minke(elsewhere, { cwd: folder })).toMatchObject({ code: 0, stderr: "" });
      expect(JSON.parse(await readFile(join(run, "run.json"), "utf8")).layout).toMatchObject(layout);
      const wanted = await onOneProcess();
      expect(wanted).toMatchObject({ samples: [{ prompt: "the " }, { prompt: "the " }] });
      expect(await everythingOf(run)).toEqual(wanted);
    },
  );
});
