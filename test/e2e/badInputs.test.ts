/** Bad inputs: each gets one clear message and a non-zero exit, and loses nothing. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type BadInput, expectRefused } from "../support/badInput.ts";
import { minke } from "../support/minke.ts";
import { scratchFolder } from "../support/scratchFolder.ts";
import { writeTrainingText } from "../support/trainingText.ts";
import { badCheckpoints } from "./badInputs/checkpoints.ts";
import { badCommandLines } from "./badInputs/commandLine.ts";
import { badData } from "./badInputs/data.ts";
import { badPlaces } from "./badInputs/places.ts";

let home: string;
let made: Promise<string> | undefined;

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), "minke-bad-"));
});
afterAll(() => rm(home, { recursive: true, force: true }));

/** A whole run of six steps with checkpoints at 4 and 6; made by the first test that needs it, copied by all. */
function trainedRun(): Promise<string> {
  made ??= (async () => {
    const text = await writeTrainingText(home, 100);
    const settings = ["data.tokenizer=bytes", "checkpoint.everySteps=2", "batchRows=4", "microBatchRows=4"];
    const set = settings.flatMap((setting) => ["--set", setting]);
    const fixed = ["--preset", "unit", "--precision", "f32", "--steps", "6", "--threads", "1"];
    const { code, stderr } = await minke(["train", "--data", text, "--run", "run", ...fixed, ...set], {
      cwd: home,
    });
    expect({ code, stderr }).toMatchObject({ code: 0 });
    return join(home, "run");
  })();
  return made;
}

const themes: Readonly<Record<string, readonly BadInput[]>> = {
  "what can be mistyped": badCommandLines,
  "training data as it should not be": badData,
  "what was damaged, mixed up, or never there": badCheckpoints,
  "folders in which no run can be": badPlaces,
};

describe.each(Object.entries(themes))("%s", (_theme, inputs) => {
  test.each(inputs)("$name is refused with one message, and nothing is lost", async (bad) => {
    const trained = await trainedRun();
    const folder = await scratchFolder();
    await writeTrainingText(folder, 100);
    await expectRefused(bad, folder, trained);
  });
});
