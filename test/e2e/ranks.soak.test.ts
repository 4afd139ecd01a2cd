/** Fifty steps of micro and unit in every legal layout up to eight ranks: the bits of one process. */
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { builtEntry, minke, startMinke } from "../support/minke.ts";
import { mpiFlavours, startRanks } from "../support/mpirun.ts";
import { expectSameBits, expectSameParts } from "../support/rankedBits.ts";
import { outcomeOf, rankedArguments, resumeOnRanks } from "../support/rankedRun.ts";
import { pipelineConfig, sharedConfig, trainAlone, trainOnRanks } from "../support/rankedTraining.ts";
import { scratchFolder } from "../support/scratchFolder.ts";
import { fingerprint, seenSteps } from "../support/shortRun.ts";
import { writeTrainingText } from "../support/trainingText.ts";

const STEPS = 50;
const TIMEOUT = { timeout: 3_600_000 };
const layouts = [1, 2, 4, 8].flatMap((ranks) => [false, true].map((zero1) => ({ ranks, zero1 })));

const expertLayouts = [2, 4, 8].flatMap((ranks) =>
  [2, 4]
    .filter((ep) => ranks % ep === 0)
    .flatMap((ep) =>
      [false, true].flatMap((zero1) =>
        [null, ep / 2].map((ranksPerNode) => ({ dp: ranks, ep, zero1, ranksPerNode })),
      ),
    ),
);

/** Layers and MTP modules with which a schedule's layouts up to four ranks in a pipeline are legal. */
const pipelines = [
  ["1f1b", 4, 0],
  ["zb", 4, 0],
  ["dualpipe", 4, 1],
  ["dualpipev", 8, 1],
] as const;

const pipelineCuts = [1, 2, 4].flatMap((dp) =>
  [1, 2, 4]
    .filter((ep) => dp % ep === 0)
    .flatMap((ep) =>
      [2, 4]
        .filter((pp) => dp * pp <= 8)
        .flatMap((pp) => [false, true].map((zero1) => [dp, ep, pp, zero1] as const)),
    ),
);

/** What the first test that asks makes for all that follow: each layout is a test, because hours may end early. */
function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined;
  return () => {
    made ??= make();
    return made;
  };
}

/** Lets a run take some steps and kills it. */
async function killAfterSteps(args: readonly string[], steps: number, cwd: string): Promise<void> {
  const { child, finished } = await startMinke(args, { cwd });
  await seenSteps(child.stdout, steps);
  child.kill("SIGKILL");
  await finished;
}

describe("fifty steps", () => {
  test.each(
    (["unit", "micro"] as const).flatMap((preset) =>
      (["f32", "bf16", "fp8"] as const).map((precision) => [preset, precision] as const),
    ),
  )(
    "of %s in %s have the bits of one process on 1, 2, 4 and 8 ranks, with and without ZeRO-1",
    TIMEOUT,
    async (preset, precision) => {
      const config = sharedConfig(preset, precision, { rowLength: 32 });
      const alone = await trainAlone(config, STEPS);
      for (const { ranks, zero1 } of layouts)
        expectSameBits(await trainOnRanks(config, STEPS, { dp: ranks, zero1 }), alone, zero1);
    },
  );

  describe.each(
    pipelines.flatMap((one) => (["bf16", "f32", "fp8"] as const).map((kind) => [...one, kind] as const)),
  )("of a pipeline by %s of %i layers, %i MTP modules, in %s", (schedule, layers, mtp, precision) => {
    const config = pipelineConfig(precision, layers, mtp);
    const alone = once(() => trainAlone(config, STEPS));

    test.each(pipelineCuts)(
      "have the bits of one process on dp=%i, ep=%i, pp=%i, ZeRO-1: %s",
      TIMEOUT,
      async (dp, ep, pp, zero1) => {
        // A group of four on two machines takes two hops, too.
        for (const ranksPerNode of ep === 4 ? [null, 2] : [null]) {
          const trained = await trainOnRanks(config, STEPS, { dp, ep, pp, zero1, schedule }, ranksPerNode);
          expectSameParts(trained, await alone());
        }
      },
    );
  });

  describe.each(pipelines.flatMap((one) => mpiFlavours.map((flavour) => [...one, flavour] as const)))(
    "in a pipeline by %s of %i layers, %i MTP modules, over %s",
    (schedule, layers, mtp, flavour) => {
      const set = [`model.numHiddenLayers=${layers}`, `model.numNextnPredictLayers=${mtp}`];
      const alone = once(async () => {
        const cwd = await scratchFolder();
        const run = join(cwd, "alone");
        const args = rankedArguments({ text: await writeTrainingText(cwd), run, steps: STEPS, set });
        expect((await minke(args, { cwd })).code).toBe(0);
        return outcomeOf(run, STEPS);
      });

      test.each(pipelineCuts)(
        "leave the files of one process on dp=%i, ep=%i, pp=%i, ZeRO-1: %s",
        TIMEOUT,
        async (dp, ep, pp, zero1) => {
          const cwd = await scratchFolder();
          const run = join(cwd, "run");
          const places = ["--layout", `dp=${dp},ep=${ep},pp=${pp}`, "--schedule", schedule];
          const launch = [...places, ...(zero1 ? ["--zero1"] : [])];
          const args = rankedArguments({
            text: await writeTrainingText(cwd),
            run,
            steps: STEPS,
            launch,
            set,
          });
          const job = startRanks(dp * pp, await builtEntry(), args, { flavour, cwd });
          expect((await job.finished).code).toBe(0);
          expect(await outcomeOf(run, STEPS)).toEqual(await alone());
        },
      );
    },
  );

  test.each(
    (["unit", "micro"] as const).flatMap((preset) =>
      (["f32", "bf16", "fp8"] as const).map((precision) => [preset, precision] as const),
    ),
  )(
    "of %s in %s have the bits of one process where ranks share the experts",
    TIMEOUT,
    async (preset, precision) => {
      const config = sharedConfig(preset, precision, { rowLength: 32 });
      const alone = await trainAlone(config, STEPS);
      for (const { ranksPerNode, ...cut } of expertLayouts)
        expectSameParts(await trainOnRanks(config, STEPS, cut, ranksPerNode), alone);
    },
  );

  test("over MPI leave the files of one process", TIMEOUT, async () => {
    const cwd = await scratchFolder();
    const text = await writeTrainingText(cwd);
    const alone = join(cwd, "alone");
    expect((await minke(rankedArguments({ text, run: alone, steps: STEPS }), { cwd })).code).toBe(0);
    const wanted = await outcomeOf(alone, STEPS);
    const entry = await builtEntry();
    const straight = expertLayouts.filter(({ ranksPerNode }) => ranksPerNode === null);
    for (const flavour of mpiFlavours) {
      for (const { dp: ranks, zero1, ep } of [
        ...layouts.map((layout) => ({ dp: layout.ranks, zero1: layout.zero1, ep: 1 })),
        ...straight,
      ]) {
        const run = join(cwd, `${flavour}-${ranks}-${ep}-${zero1}`);
        const launch = ["--layout", `dp=${ranks},ep=${ep}`, ...(zero1 ? ["--zero1"] : [])];
        const args = rankedArguments({ text, run, steps: STEPS, launch });
        expect((await startRanks(ranks, entry, args, { flavour, cwd }).finished).code).toBe(0);
        expect(await outcomeOf(run, STEPS)).toEqual(wanted);
      }
    }
  });

  test(
    "that are stopped and go on in another layout each time leave the files of one process",
    TIMEOUT,
    async () => {
      const cwd = await scratchFolder();
      const text = await writeTrainingText(cwd);
      const [alone, moving] = [join(cwd, "alone"), join(cwd, "moving")];
      expect((await minke(rankedArguments({ text, run: alone, steps: STEPS }), { cwd })).code).toBe(0);
      const begun = rankedArguments({ text, run: moving, steps: STEPS, launch: ["--ranks", "2"] });
      let args: readonly string[] = begun;
      for (const launch of [["--ranks", "8", "--zero1"], [], ["--ranks", "4"], ["--ranks", "1", "--zero1"]]) {
        await killAfterSteps(args, 8, cwd);
        args = resumeOnRanks(moving, launch);
      }
      expect((await minke(args, { cwd })).code).toBe(0);
      expect(await fingerprint(moving, STEPS)).toEqual(await fingerprint(alone, STEPS));
    },
  );
});
