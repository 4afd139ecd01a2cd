/** Folders in which no run can be. */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { BadInput } from "../../support/badInput.ts";

const trainInto = (run: string): string[] => [
  ...["train", "--preset", "unit", "--data", "text.txt", "--steps", "2", "--run", run],
  ...["--set", "data.tokenizer=bytes"],
];

export const badPlaces: readonly BadInput[] = [
  {
    name: "a folder with other files in it",
    make: async ({ folder }) => {
      await mkdir(join(folder, "letters"));
      await writeFile(join(folder, "letters", "dear.txt"), "Dear whale");
      return trainInto("letters");
    },
    says: /letters already holds dear\.txt/,
  },
  {
    name: "a folder with a run in it",
    make: async ({ copyRun }) => trainInto(await copyRun()),
    says: /run already holds a run[\s\S]*--resume/,
  },
  { name: "a folder below a file", make: () => trainInto("text.txt/run"), says: /is in the way of a folder/ },
  {
    // Nobody may make a folder in sysfs, not even root, whose rights every other folder grants.
    name: "a read-only folder",
    make: () => trainInto("/sys/minke-run"),
    says: /\/sys\/minke-run may not be written/,
  },
  {
    name: "a file as the folder of runs",
    make: () => ["runs", "list", "--root", "text.txt"],
    says: /text\.txt is in the way of a folder/,
  },
  {
    name: "a lock that is none",
    make: async ({ folder, copyRun }) => {
      const run = await copyRun();
      await writeFile(join(folder, run, "lock"), "locked");
      return ["train", "--run", run, "--resume"];
    },
    says: /lock is not a lock[\s\S]*delete/,
  },
  {
    name: "a disk that is too small for the run's checkpoints",
    // A thousand million checkpoints fit on no disk: refused before the first step.
    make: () => [...trainInto("new"), "--set", "checkpoint.keepEvery=1", "--set", "steps=1000000000"],
    says: /free, .* are needed for \d+ checkpoints[\s\S]*checked before it starts/,
  },
];
