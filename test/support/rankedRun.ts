/** Short runs of micro on ranks, over the command line, and what they leave. */
import type { TrainConfig } from "../../src/train/config.ts";
import { fingerprint, historyOf } from "./shortRun.ts";

const settings = [
  "data.tokenizer=bytes",
  "rowLength=16",
  "batchRows=32",
  "microBatchRows=1",
  "gradientShards=8",
  "schedule.rampStart=1",
  "evaluate.everySteps=4",
  "evaluate.rows=2",
  "evaluate.lastRows=2",
  "optimizer.emaDecay=0.9",
];

export interface RankedRun {
  readonly text: string;
  readonly run: string;
  readonly steps: number;
  /** Flags that say how the work is shared. */
  readonly launch?: readonly string[];
  readonly precision?: TrainConfig["precision"];
  readonly saveEvery?: number;
  readonly set?: readonly string[];
}

/** `minke train ...` of a new run; where the same is asked for, the bits are the same, whatever the launch. */
export function rankedArguments(wanted: RankedRun): string[] {
  const { text, run, steps, launch = [], precision = "bf16", saveEvery = 4, set = [] } = wanted;
  const all = [...settings, `checkpoint.everySteps=${saveEvery}`, ...set];
  return [
    ...["train", "--preset", "micro", "--data", text, "--run", run, "--steps", String(steps)],
    ...["--seed", "7", "--precision", precision, "--threads", "2", "--json"],
    ...all.flatMap((setting) => ["--set", setting]),
    ...launch,
  ];
}

/** What a run leaves that no launch may change: its files, and of each step the losses and how many tokens every expert got. */
export async function outcomeOf(run: string, steps: number): Promise<unknown> {
  const completed = (await historyOf(run)).of("step.completed");
  return {
    files: await fingerprint(run, steps),
    steps: completed.map(({ step, loss, mainLoss, mtpLosses, balanceLoss, gradNorm, expertLoad }) => {
      return { step, loss, mainLoss, mtpLosses, balanceLoss, gradNorm, expertLoad };
    }),
  };
}

export function resumeOnRanks(run: string, launch: readonly string[]): string[] {
  return ["train", "--run", run, "--resume", "--threads", "2", "--json", ...launch];
}
