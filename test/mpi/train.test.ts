/** What becomes of a run that processes have written: one of them prints, and any layout goes on from its checkpoint. */
import { join } from "node:path";
import { expect, test } from "vitest";
import { builtEntry, minke } from "../support/minke.ts";
import { mpiFlavours, occurrences, startRanks } from "../support/mpirun.ts";
import { rankedArguments, resumeOnRanks } from "../support/rankedRun.ts";
import { scratchFolder } from "../support/scratchFolder.ts";
import { fingerprint, historyOf } from "../support/shortRun.ts";
import { writeTrainingText } from "../support/trainingText.ts";

const STEPS = 4;

test.each(mpiFlavours)(
  "under %s the first of two processes alone prints; one process, and two more, go on from them",
  {
    timeout: 240_000,
  },
  async (flavour) => {
    const cwd = await scratchFolder();
    const text = await writeTrainingText(cwd);
    const [alone, shared] = [join(cwd, "alone"), join(cwd, "shared")];
    expect((await minke(rankedArguments({ text, run: alone, steps: STEPS }), { cwd })).code).toBe(0);
    const args = rankedArguments({ text, run: shared, steps: STEPS, launch: ["--zero1"] });
    const { code, stdout, stderr } = await startRanks(2, await builtEntry(), args, { flavour, cwd }).finished;
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(occurrences(stdout, '"type":"run.started"')).toBe(1);
    expect(occurrences(stdout, '"type":"step.completed"')).toBe(STEPS);
    const losses = async (run: string) => (await historyOf(run)).of("step.completed").map(({ loss }) => loss);
    expect(await losses(shared)).toEqual(await losses(alone));

    const further = (steps: number): string[] => ["--set", `steps=${steps}`];
    expect((await minke(resumeOnRanks(shared, further(STEPS + 1)), { cwd })).code).toBe(0);
    const again = resumeOnRanks(shared, further(STEPS + 2));
    expect((await startRanks(2, await builtEntry(), again, { flavour, cwd }).finished).code).toBe(0);
    for (const steps of [STEPS + 1, STEPS + 2])
      expect((await minke(resumeOnRanks(alone, further(steps)), { cwd })).code).toBe(0);
    expect(await fingerprint(shared, STEPS + 2)).toEqual(await fingerprint(alone, STEPS + 2));
  },
);
