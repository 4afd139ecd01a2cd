/** Fifty deaths at random instants, each followed by --resume: the bits of a run that nobody disturbed. */
import { join } from "node:path";
import { expect, test } from "vitest";
import { minke } from "../support/minke.ts";
import { scratchFolder } from "../support/scratchFolder.ts";
import { fingerprint, historyOf, STEPS, surviveDeaths, trainArguments } from "../support/shortRun.ts";
import { writeTrainingText } from "../support/trainingText.ts";

test("50 steps of micro give the same bits when they are killed 50 times", {
  timeout: 3_600_000,
}, async () => {
  const folder = await scratchFolder();
  const text = await writeTrainingText(folder);
  const undisturbed = join(folder, "undisturbed");
  expect((await minke(trainArguments(text, undisturbed, 1), { cwd: folder })).code).toBe(0);
  const wanted = await fingerprint(undisturbed);

  const { deaths, halfWritten, runs } = await surviveDeaths(50, folder, text, 20261122);
  console.log(`${deaths} deaths, ${halfWritten} of them while a checkpoint was written, ${runs.length} runs`);
  for (const run of runs) {
    expect(await fingerprint(run)).toEqual(wanted);
    const steps = (await historyOf(run)).of("step.completed").map(({ step }) => step);
    expect(steps).toEqual(Array.from({ length: STEPS }, (_, i) => i + 1));
  }
});
