/** `minke bench`: how fast this machine multiplies and trains, as shares of its own peak and beside other programs. */
import { Command } from "commander";
import { isLaunched, type OpenDevice, openDevice } from "../../api/index.ts";
import { BackendError } from "../../base/index.ts";
import { schedules } from "../../parallel/index.ts";
import { interruptible } from "../interrupt.ts";
import { choiceOption, numberOption, threadsOption } from "../options.ts";
import { temporaryFolder } from "../temporaryFolder.ts";
import { benchCosts } from "./costs.ts";
import { benchKernels } from "./kernels.ts";
import { benchMessages, type MessageFlags } from "./messages.ts";
import { benchOps } from "./opRows.ts";
import { benchOverlap, type OverlapFlags } from "./overlap.ts";
import { benchPeers } from "./peers.ts";
import { benchRanks, type RankFlags } from "./ranks.ts";
import { type BenchFlags, type BenchRow, OPS_HEADER, rowText, type StepFlags, TRACE_HEADER } from "./row.ts";
import { benchSchedules, type ScheduleFlags } from "./schedules.ts";
import { serveBench } from "./serve.ts";
import { benchStep } from "./step.ts";
import { benchTrace, requireWritable } from "./trace.ts";
import { WORKLOADS, workloadConfig } from "./workload.ts";

export function benchCommand(): Command {
  const bench = new Command("bench").description(
    "measure kernels, training steps, ranks and pipelines, or PyTorch beside them",
  );
  bench.addCommand(
    verb(
      "kernels",
      "matrix products as shares of the register peak, and every op where a model runs it",
      "--precision f32",
    ).action((flags: BenchFlags) =>
      withNative(flags, async (opened) => {
        await print(benchKernels(opened, flags), flags);
        await printTable(OPS_HEADER, benchOps(opened, flags), flags);
      }),
    ),
  );
  bench.addCommand(
    verb("step", "training steps of a model, and with --trace where their time goes", "--trace step.json")
      .option(
        "--trace <file>",
        "also trace steps (5 at the least): the fastest as a table op by op, and as a Chrome trace in this file",
      )
      .action((flags: StepFlags) =>
        withNative(flags, async (opened) => {
          if (flags.trace !== undefined) await requireWritable(flags.trace);
          await print(benchStep(opened, flags), flags);
          if (flags.trace === undefined) return;
          await printTable(TRACE_HEADER, benchTrace(opened, flags, flags.trace), flags);
        }),
      ),
  );
  bench.addCommand(
    verb(
      "costs",
      "what MTP, recomputation, uneven routing, FP8 and experts cost a step",
      "--preset nano --rounds 20",
    ).action((flags: BenchFlags) => withNative(flags, (opened) => print(benchCosts(opened, flags), flags))),
  );
  bench.addCommand(
    new Command("messages")
      .description("messages between two ranks: queues of this process, or under mpirun two processes")
      .option(
        "--rounds <n>",
        "measurements of each size; the best and the middle count",
        numberOption("--rounds", 1, true),
        20,
      )
      .option("--json", "print one JSON object per row")
      .addHelpText("after", "\nExamples:\n  minke bench messages\n  mpirun -n 2 minke bench messages\n")
      .action((flags: MessageFlags) => print(benchMessages(flags), flags)),
  );
  bench.addCommand(
    new Command("schedules")
      .description("pipelines with timed chunks and real messages: the bubble measured, and as simulated")
      .option(
        "--ranks <n>",
        "of the pipeline; 4 and 8 by default, under mpirun all",
        numberOption("--ranks", 2, true, 64),
      )
      .option("--micro-batches <n>", "of a step", numberOption("--micro-batches", 1, true), 20)
      .option("--schedule <name>", "one of them only", choiceOption("--schedule", schedules))
      .option("--pace <file>", "what chunks take, as JSON: the simulator's costs, in seconds")
      .option(
        "--rounds <n>",
        "measurements of each; the shortest counts",
        numberOption("--rounds", 1, true),
        1,
      )
      .option("--trace <folder>", "also keep the ranks' spans, for `minke trace`")
      .option("--json", "print one JSON object per row")
      .addHelpText(
        "after",
        "\nExamples:\n  minke bench schedules\n  mpirun -n 4 minke bench schedules --rounds 3\n",
      )
      .action((flags: ScheduleFlags) => print(benchSchedules(flags), flags)),
  );
  bench.addCommand(
    new Command("overlap")
      .description("the experts' all-to-all over a slow link: hidden by interleaved pairs, and without")
      .option("--ranks <n>", "of the pipeline, each of them twice", numberOption("--ranks", 2, true, 32), 2)
      .option("--micro-batches <n>", "of a step", numberOption("--micro-batches", 1, true), 16)
      .option(
        "--rounds <n>",
        "measurements of each; the shortest counts",
        numberOption("--rounds", 1, true),
        1,
      )
      .option("--trace <folder>", "also keep the ranks' spans, for `minke trace`")
      .option("--json", "print one JSON object per row")
      .addHelpText(
        "after",
        "\nExample:\n  minke bench overlap --trace overlap/ && minke trace overlap/interleaved\n",
      )
      .action((flags: OverlapFlags) => print(benchOverlap(flags), flags)),
  );
  bench.addCommand(
    verb("ranks", "the same step by one process and by ranks: what it costs to share it", "--ranks 2")
      .option(
        "--ranks <n>",
        "ranks in this process; 2 by default, under mpirun its processes",
        numberOption("--ranks", 1, true, 64),
      )
      .action((flags: RankFlags) =>
        print(benchRanks({ ...flags, ...(isLaunched() ? {} : { ranks: flags.ranks ?? 2 }) }), flags),
      ),
  );
  bench.addCommand(
    verb(
      "peers",
      "training steps, ours in bf16 and f32 and PyTorch's in turn",
      "--preset nano --rounds 20",
    ).action((flags: BenchFlags) => peers(flags)),
  );
  bench.addCommand(
    verb(
      "serve",
      "one side of `bench peers`: takes steps as it is told on standard input",
      "--preset micro < lines",
    ).action((flags: BenchFlags) => withNative(flags, (opened) => serveBench(opened, flags), ["gemm"])),
  );
  return bench;
}

/** Every verb has the same flags, so that a line for one can be turned into a line for another. */
const presetHelp: Readonly<Record<string, string>> = {
  kernels: `${WORKLOADS.join(", ")}: whose ops are timed; products have sizes of their own`,
  step: WORKLOADS.join(", "),
  costs: "nano, micro, mini",
  ranks: WORKLOADS.join(", "),
  peers: `${WORKLOADS.join(", ")}, or gemm for one product`,
  serve: `${WORKLOADS.join(", ")}, or gemm for one product`,
};

function verb(name: string, description: string, example: string): Command {
  const precisions = name === "step" || name === "ranks" ? ["f32", "bf16", "fp8"] : ["f32", "bf16"];
  const precisionHelp = name === "peers" ? "has no effect: both are measured" : precisions.join(", ");
  return new Command(name)
    .description(description)
    .option("--preset <name>", presetHelp[name], "nano")
    .option("--precision <p>", precisionHelp, choiceOption("--precision", precisions), "bf16")
    .option("--threads <n>", "threads that compute", threadsOption)
    .option(
      "--rounds <n>",
      "measurements of each; the best and the middle count",
      numberOption("--rounds", 1, true),
      12,
    )
    .option("--json", "print one JSON object per row")
    .addHelpText("after", `\nExample:\n  minke bench ${name} ${example}\n`);
}

async function withNative(
  flags: StepFlags,
  run: (opened: OpenDevice) => Promise<void>,
  others: readonly string[] = [],
): Promise<void> {
  // Before anything is measured or started: a slip of the pen must not cost minutes.
  if (!others.includes(flags.preset)) workloadConfig(flags.preset, flags.precision);
  const opened = openDevice({ threads: flags.threads });
  try {
    if (opened.native === null) {
      throw new BackendError("there is nothing to measure without the native backend", {
        why: opened.warning?.why ?? "the reference backend is made to be read",
        fix: "install Rust (https://rustup.rs), then npm run build",
      });
    }
    await run(opened);
  } finally {
    await opened.device.dispose();
  }
}

/** Ctrl-C ends every process that was started, and says nothing of what was not measured. */
async function peers(flags: BenchFlags): Promise<void> {
  using interrupt = interruptible("ending every program that was started");
  const { signal } = interrupt;
  const say = (text: string): void => void process.stderr.write(`${text}\n`);
  // Opened for a moment: the number of threads that all sides get is the one that ours would take.
  let threads = 0;
  await withNative(
    flags,
    async (opened) => {
      threads = opened.threads;
    },
    ["gemm"],
  );
  try {
    await print(
      benchPeers(flags, { threads, scratch: temporaryFolder("minke-peers-"), stop: signal, say }),
      flags,
    );
  } catch (error) {
    if (!signal.aborted) throw error;
    process.exitCode = 130;
  }
}

async function printTable(header: string, rows: AsyncIterable<BenchRow>, flags: StepFlags): Promise<void> {
  if (flags.json !== true) process.stdout.write(`\n${header}\n`);
  await print(rows, flags);
}

async function print(rows: AsyncIterable<BenchRow>, { json }: { readonly json?: boolean }): Promise<void> {
  for await (const row of rows)
    process.stdout.write(`${json === true ? JSON.stringify(row) : rowText(row)}\n`);
}
