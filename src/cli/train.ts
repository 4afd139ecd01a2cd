/** `minke train`: from plain text to a model, in one command. */
import { Command } from "commander";
import { isFirstProcess, type TrainOptions, trainModel } from "../api/index.ts";
import type { EventSink } from "../base/index.ts";
import { type Schedule, schedules } from "../parallel/index.ts";
import { openTerminal } from "../run/index.ts";
import { interruptible } from "./interrupt.ts";
import { choiceOption, listOption, numberOption, threadsOption } from "./options.ts";

interface Flags {
  readonly preset?: string;
  readonly data?: readonly string[];
  readonly steps?: number;
  readonly minutes?: number;
  readonly seed?: number;
  readonly threads?: number;
  readonly precision?: "f32" | "bf16" | "fp8";
  readonly run?: string;
  readonly resume?: boolean;
  readonly set?: readonly string[];
  readonly json?: boolean;
  readonly tensorboard?: boolean;
  readonly backend?: "native" | "reference";
  readonly ranks?: number;
  readonly layout?: string;
  readonly zero1?: boolean;
  readonly ranksPerNode?: number;
  readonly schedule?: Schedule;
  readonly trace?: number | true;
}

export function trainCommand(): Command {
  return new Command("train")
    .description("train a model from plain text")
    .option("--preset <name>", "unit, micro, nano, mini or shakespeare")
    .option("--data <path>", "text file, folder, .jsonl or .parquet; may be repeated", listOption)
    .option("--steps <n>", "number of optimizer steps", numberOption("--steps", 1, true))
    .option(
      "--minutes <m>",
      "time budget; resolved once to a number of steps",
      numberOption("--minutes", 0.01, false),
    )
    .option("--seed <s>", "of weights, order and samples", numberOption("--seed", 0, true))
    .option("--threads <n>", "threads that compute; all by default", threadsOption)
    .option(
      "--precision <p>",
      "bf16 (default), f32 or fp8",
      choiceOption("--precision", ["f32", "bf16", "fp8"]),
    )
    .option("--run <dir>", "the run's folder; a fresh one below runs/ by default")
    .option("--resume", "go on from the run's newest checkpoint")
    .option("--set <path=value>", "change one setting; may be repeated", listOption)
    .option("--backend <name>", "native or reference", choiceOption("--backend", ["native", "reference"]))
    .option(
      "--ranks <n>",
      "ranks in this process that share each step; data-parallel by default",
      numberOption("--ranks", 1, true, 1024),
    )
    .option(
      "--layout <places>",
      "which rank is what: dp=4, dp=4,ep=2 with shared experts, dp=2,pp=2, or all three",
    )
    .option(
      "--schedule <name>",
      "in which order the ranks of a pipeline work: dualpipe (default), dualpipev, 1f1b or zb",
      choiceOption("--schedule", schedules),
    )
    .option(
      "--ranks-per-node <n>",
      "where ep spans several machines: tokens cross once between those of n ranks",
      numberOption("--ranks-per-node", 1, true, 1024),
    )
    .option("--zero1", "keep moments and averages of a weight at one rank only")
    .option(
      "--trace [steps]",
      "record what every rank does in so many steps (1), after the first two; see minke trace",
      numberOption("--trace", 1, true, 100),
    )
    .option("--tensorboard", "also write TensorBoard event files")
    .option("--json", "print the events as JSON lines")
    .addHelpText(
      "after",
      "\nExamples:\n  minke train --preset nano --data speeches/ --minutes 5\n  minke train --preset micro --data book.txt --steps 500 --set optimizer.learningRate=1e-3\n  minke train --run runs/2026-11-21-nano-1 --resume\n  minke train --preset micro --data book.txt --set gradientShards=2 --set microBatchRows=1 --ranks 2 --zero1\n",
    )
    .action(async (flags: Flags) => {
      await runTraining(flags);
    });
}

/** Runs to the end, to an error, or to Ctrl-C; sets the exit code. */
export async function runTraining(
  flags: Flags,
  extra: Pick<TrainOptions, "afterTraining"> = {},
): Promise<{ readonly path: string; readonly isComplete: boolean }> {
  const { json = false, trace, ...others } = flags;
  const options = { ...others, ...(trace === undefined ? {} : { trace: trace === true ? 1 : trace }) };
  const command = process.argv.slice(2);
  if (!isFirstProcess()) return followSilently({ ...options, command });
  const terminal = openTerminal(process.stdout, { json, environment: process.env });
  const status = (text: string): void => {
    if (!json) process.stderr.write(`${text}...\n`);
  };
  using interrupt = interruptible("finishing the step and writing a checkpoint");
  const run = trainModel({
    ...options,
    ...extra,
    command,
    signal: interrupt.signal,
    sink: json ? terminal : withoutFailure(terminal),
    status,
  });
  try {
    const result = await run.finished;
    if (!result.isComplete) process.exitCode = 130;
    else if (!json)
      process.stdout.write(
        `\n${result.path}: report.md, report.html, checkpoints/\n  try: minke generate ${result.path} --prompt "..."\n`,
      );
    return result;
  } finally {
    await terminal.close();
  }
}

/** A process of a job whose first rank owns the terminal: launchers hand Ctrl-C to all, and it alone says what follows. */
async function followSilently(
  options: TrainOptions,
): Promise<{ readonly path: string; readonly isComplete: boolean }> {
  using _interrupt = interruptible(null);
  try {
    return await trainModel(options).finished;
  } catch {
    // What is wrong with all ranks the first one tells; what is wrong with this one alone has ended the job with its text.
    process.exitCode = 1;
    return { path: "", isComplete: false };
  }
}

/** An error is told once, on standard error, by whoever reports errors; the log has its event. */
function withoutFailure(sink: EventSink): EventSink {
  return { emit: (event) => (event.type === "run.failed" ? undefined : sink.emit(event)) };
}
