/** What a training run is asked for, by a program or by the command line; and what cannot be asked for together. */

import { type EventSink, type RunEventBody, UsageError } from "../base/index.ts";
import type { Schedule } from "../parallel/index.ts";
import type { TrainConfig } from "../train/index.ts";
import type { PreparedRun } from "./prepareRun.ts";

export interface TrainOptions {
  readonly preset?: string;
  /** Files and folders of text. */
  readonly data?: readonly string[];
  readonly steps?: number;
  /** A time budget instead of a number of steps: measured once, then fixed. */
  readonly minutes?: number;
  readonly seed?: number;
  readonly threads?: number;
  readonly precision?: TrainConfig["precision"];
  readonly backend?: "native" | "reference";
  /** Ranks of this process that share each step; without `layout` all of them are data-parallel. */
  readonly ranks?: number;
  /** Which rank is what: "dp=4", "dp=4,ep=2,pp=1". */
  readonly layout?: string;
  /** Moments and averages of a weight lie at one rank only. */
  readonly zero1?: boolean;
  /** Ranks of one machine, where ranks of several share the experts: between machines tokens cross once. */
  readonly ranksPerNode?: number;
  /** In which order the ranks of a pipeline work; dualpipe by default. */
  readonly schedule?: Schedule;
  /** Steps whose commands every rank records, after the first two; `minke trace` draws them. */
  readonly trace?: number;
  /** The run's folder; a fresh one in ./runs by default. */
  readonly run?: string;
  /** Goes on with the run in that folder, under the settings that lie there; `precision` and `set` change some. */
  readonly resume?: boolean;
  /** `path=value` settings on top of the preset, or of the run's own. */
  readonly set?: readonly string[];
  readonly tensorboard?: boolean;
  /** As typed, for the run's records and for what is said about resuming. */
  readonly command?: readonly string[];
  readonly signal?: AbortSignal;
  /** Sees every event as it happens, beside the iterator. */
  readonly sink?: EventSink;
  /** What is going on before the first event. */
  readonly status?: (text: string) => void;
  /** Called with the prepared run after its last step, within the run's time. */
  readonly afterTraining?: (context: TrainedContext) => Promise<readonly RunEventBody[]>;
}

export interface TrainedContext {
  readonly config: TrainConfig;
  readonly prepared: PreparedRun;
}

/** What a run settles when it begins; under --resume it would be ignored, so it is refused. */
const settledAtStart = ["preset", "data", "steps", "minutes", "seed"] as const;

/** @throws {UsageError} if the options do not say what to do, or say two things */
export function checkTrainOptions(options: TrainOptions): void {
  if (options.resume === true) checkResume(options);
  else if ((options.data ?? []).length === 0) {
    throw new UsageError("there is nothing to train on", {
      why: "a run starts from text",
      fix: "add --data PATH: a text file, a folder of them, a .jsonl or a .parquet file",
    });
  }
  if (options.steps !== undefined && options.minutes !== undefined) {
    throw new UsageError("--steps and --minutes exclude each other", {
      why: "a time budget is turned into a number of steps",
      fix: "keep one of the two",
    });
  }
}

function checkResume(options: TrainOptions): void {
  if (options.run === undefined) {
    throw new UsageError("--resume needs the run that should go on", {
      why: "there may be many runs",
      fix: "add --run DIR; `minke runs list` shows them",
    });
  }
  const settled = settledAtStart.find((name) => options[name] !== undefined);
  if (settled === undefined) return;
  throw new UsageError(`--${settled} cannot be given with --resume`, {
    why: `the settings of ${options.run} were settled when it began; they are in its run.json`,
    fix: `leave --${settled} out; a schedule or the number of steps is changed with --set, for example --set steps=2000, bf16 and fp8 with --precision`,
    fields: { flag: settled, run: options.run },
  });
}
