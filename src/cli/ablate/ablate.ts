/** `minke ablate`: trains the arms of each ablation with several seeds and prints means with 95 % intervals. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { Command } from "commander";
import { newConfig, trainModel } from "../../api/index.ts";
import { DataError, UsageError } from "../../base/index.ts";
import { interruptible } from "../interrupt.ts";
import { choiceOption, listOption, numberOption, threadsOption } from "../options.ts";
import { temporaryFolder } from "../temporaryFolder.ts";
import { type Ablation, type Arm, chosenAblations, planAblation } from "./ablations.ts";
import { type ArmResult, armRow, type SeedResult, tableOf } from "./armTable.ts";

interface Flags {
  readonly data: readonly string[];
  readonly preset: string;
  readonly steps: number;
  readonly seeds: number;
  readonly only?: string;
  readonly set?: readonly string[];
  readonly threads?: number;
  readonly backend?: "native" | "reference";
  readonly json?: boolean;
}

const HELP = `
What is compared, each arm with the first of its group, seed by seed:
  mtp        predicting the next but one token as well, or not
  balance    router bias (the preset's recipe), sequence balance loss alone, neither
  moe        experts, or dense layers of the same FLOPs per token; both without MTP
  optimizer  AdamW or Muon, at the preset's learning rate and decay
  fp8        bf16, FP8, and FP8 without each part of its recipe; only if it is named

The first four are six arms; with the defaults each run is 200 steps of 2,048 tokens, all of them 18 runs: some minutes on two
cores. Two seeds give an interval, but a wide one: five tell more. Ctrl-C prints the runs that are finished.

Examples:
  minke ablate --data texts/ --only mtp --seeds 5
  minke ablate fp8 --data texts/ --preset nano --steps 500
  minke ablate --data book.txt --preset shakespeare --only moe,balance --steps 300 --json
`;

export function ablateCommand(): Command {
  return new Command("ablate")
    .description("train with and without a part of the design, with several seeds, and compare")
    .argument("[names...]", "of mtp, balance, moe, optimizer, fp8; the first four by default")
    .requiredOption("--data <path>", "text file, folder, .jsonl or .parquet; may be repeated", listOption)
    .option("--preset <name>", "unit, micro, shakespeare, nano or mini", "micro")
    .option("--steps <n>", "optimizer steps of every run", numberOption("--steps", 1, true), 200)
    .option("--seeds <n>", "runs of every arm", numberOption("--seeds", 1, true, 100), 3)
    .option("--only <names>", "the same with commas between them")
    .option("--set <path=value>", "change one setting of every run; may be repeated", listOption)
    .option("--threads <n>", "threads that compute; all by default", threadsOption)
    .option("--backend <name>", "native or reference", choiceOption("--backend", ["native", "reference"]))
    .option("--json", "print one JSON object per arm")
    .addHelpText("after", HELP)
    .action(runAblations);
}

async function runAblations(words: readonly string[], flags: Flags): Promise<void> {
  const names = chosenAblations(namesOf(words, flags.only));
  const { preset, set = [], steps } = flags;
  const config = newConfig({ preset, set }, steps);
  using interrupt = interruptible("ending the run, then printing what is finished");
  const folder = temporaryFolder("minke-ablate-");
  /** Arms that two ablations share are trained once. */
  const known = new Map<string, readonly SeedResult[]>();
  for (const name of names) {
    const ablation = planAblation(name, config.model, config.rowLength);
    if (!(await runArms(ablation, flags, folder, interrupt.signal, known))) break;
  }
}

function namesOf(words: readonly string[], only: string | undefined): string | undefined {
  if (words.length === 0) return only;
  if (only === undefined) return words.join(",");
  throw new UsageError(`${words.join(" ")} and --only ${only} name ablations twice`, {
    why: "both say which comparisons to make",
    fix: "keep one of the two",
    fields: { names: words, only },
  });
}

/** False if it was interrupted. Whatever ends it, runs that are finished are printed: they took minutes. */
async function runArms(
  ablation: Ablation,
  flags: Flags,
  folder: string,
  signal: AbortSignal,
  known: Map<string, readonly SeedResult[]>,
): Promise<boolean> {
  const { preset, set = [], steps } = flags;
  const results: ArmResult[] = [];
  try {
    for (const arm of ablation.arms) {
      const key = JSON.stringify(newConfig({ preset, set: [...set, ...arm.settings] }, steps));
      const seeds: SeedResult[] = [...(known.get(key) ?? [])];
      try {
        if (seeds.length === 0) await runArm(arm, flags, folder, signal, (result) => void seeds.push(result));
      } finally {
        if (seeds.length > 0) results.push({ arm, seeds });
        if (seeds.length > 0 && flags.json === true) printJson(ablation, results);
      }
      if (seeds.length < flags.seeds) return false;
      known.set(key, seeds);
    }
    return true;
  } finally {
    if (flags.json !== true && results.length > 0)
      process.stdout.write(`\n${ablation.name}: ${ablation.question}\n${tableOf(results, flags.seeds)}\n`);
  }
}

/** Ends early if it is interrupted. */
async function runArm(
  arm: Arm,
  flags: Flags,
  folder: string,
  signal: AbortSignal,
  onResult: (result: SeedResult) => void,
): Promise<void> {
  for (let seed = 0; seed < flags.seeds; seed++) {
    if (flags.json !== true) process.stderr.write(`${arm.name}, seed ${seed}...\n`);
    const run = join(folder, "run");
    const result = await runSeed(arm, seed, flags, run, signal);
    await rm(run, { recursive: true, force: true });
    if (result === null) {
      process.exitCode = 130;
      return;
    }
    onResult(result);
  }
}

/** The arm that was finished last, beside the first. */
function printJson({ name }: Ablation, results: readonly ArmResult[]): void {
  process.stdout.write(`${JSON.stringify({ ablation: name, ...armRow(results.at(-1)!, results[0]!) })}\n`);
}

/** Settings that would only cost time: what is compared is the model after its last step. */
const quiet = ["evaluate.everySteps=0", "sample.everySteps=0", "checkpoint.everySteps=0"];

async function runSeed(
  arm: Arm,
  seed: number,
  { data, preset, steps, threads, backend, set = [] }: Flags,
  run: string,
  signal: AbortSignal,
): Promise<SeedResult | null> {
  const settings = [...quiet, ...set, ...arm.settings];
  const options = { data, preset, steps, seed, run, set: settings, signal };
  const training = trainModel({
    ...options,
    ...(threads === undefined ? {} : { threads }),
    ...(backend === undefined ? {} : { backend }),
  });
  let [loss, bitsPerByte]: [number | null, number | null] = [null, null];
  const [violations, speeds]: [number[], number[]] = [[], []];
  for await (const event of training) {
    if (event.type === "evaluation.completed") ({ loss, bitsPerByte } = event);
    if (event.type !== "step.completed") continue;
    speeds.push(event.tokensPerSecond);
    // The first half is the time in which balancing finds its feet.
    if (2 * event.step > steps && event.expertLoad.length > 0) violations.push(event.maxViolation);
  }
  if (!(await training.finished).isComplete) return null;
  if (loss === null || bitsPerByte === null)
    throw new DataError(`${arm.name}, seed ${seed}: there is no validation loss to compare`, {
      why: "nothing is held out, or the loss is not finite",
      fix: "hold out documents with --set data.validationEvery=20, or lower optimizer.learningRate",
      fields: { arm: arm.name, seed },
    });
  return { seed, loss, bitsPerByte, maxViolation: meanOf(violations), tokensPerSecond: Math.max(...speeds) };
}

function meanOf(values: readonly number[]): number | null {
  return values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length;
}
