/** Fifty deaths at random instants in one run's life, each followed by --resume; the bits of an undisturbed run. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { minke } from "../support/minke.ts";
import { makeRandom } from "../support/random.ts";
import { scratchFolder } from "../support/scratchFolder.ts";
import {
  fingerprint,
  historyOf,
  type Instant,
  killAt,
  leftHalfWritten,
  resumeArguments,
  STEPS,
  trainArguments,
} from "../support/shortRun.ts";
import { writeTrainingText } from "../support/trainingText.ts";

const DEATHS = 50;

test("50 steps give the same bits when they are killed 50 times", { timeout: 3_600_000 }, async () => {
  const folder = await scratchFolder();
  const text = await writeTrainingText(folder);
  const undisturbed = join(folder, "undisturbed");
  expect((await minke(trainArguments(text, undisturbed, 1), { cwd: folder })).code).toBe(0);
  const wanted = await fingerprint(undisturbed);

  const random = makeRandom(20261121);
  let deaths = 0;
  let halfWritten = 0;
  for (let life = 0; deaths < DEATHS; life++) {
    const run = join(folder, `life-${life}`);
    let args = trainArguments(text, run, 2, 3);
    while (true) {
      const instant: Instant =
        random() < 0.4
          ? { kind: "writing", afterMs: Math.floor(random() * 12) }
          : { kind: "step", steps: Math.floor(random() * 12), afterMs: Math.floor(random() * 60) };
      const { code } = await killAt(args, run, instant);
      if (code === 0) break;
      expect(code).toBe(137);
      deaths++;
      if (await leftHalfWritten(run)) halfWritten++;
      args = resumeArguments(run, 1 + (deaths % 2));
      if (deaths === DEATHS) expect((await minke(args, { cwd: folder })).code).toBe(0);
      if (deaths === DEATHS) break;
    }
    expect(await fingerprint(run)).toEqual(wanted);
    const steps = (await historyOf(run)).of("step.completed").map(({ step }) => step);
    expect(steps).toEqual(Array.from({ length: STEPS }, (_, i) => i + 1));
    await rm(run, { recursive: true });
  }
  console.log(`${deaths} deaths, ${halfWritten} of them while a checkpoint was written`);
  expect(halfWritten).toBeGreaterThan(0);
});
