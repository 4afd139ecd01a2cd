/** `minke plan`: what a training run or a service would take on a cluster, on paper. */
import { writeFile } from "node:fs/promises";
import { Command } from "commander";
import { parseCount, UsageError } from "../../base/index.ts";
import type { ModelConfig } from "../../model/index.ts";
import {
  bestLayout,
  type Cluster,
  isPublishedRun,
  planTraining,
  publishedLayout,
  type SweepSpace,
  schedules,
  sweepLayouts,
  type TrainingLayout,
  type TrainingRun,
} from "../../planner/index.ts";
import { explained } from "../../run/index.ts";
import { choiceOption, numberOption } from "../options.ts";
import { type PlanFlags, parseLayout, readCluster, readLoads, readModel, stepSize } from "./inputs.ts";
import { planJson, sweepJson } from "./planJson.ts";
import { planPage } from "./planPage.ts";
import { servingReport, servingText } from "./servingText.ts";
import { sweepText } from "./sweepText.ts";
import { type PlanReport, trainingText } from "./trainingText.ts";

export function planCommand(): Command {
  return new Command("plan")
    .description("plan a run or a service on paper: time, memory, traffic, bubbles, money")
    .option("--model <name>", "preset, config.json, or a folder with one", "v3-671b")
    .option("--cluster <name>", "h800xN, h100xN, or a JSON file that describes one", "h800x2048")
    .option("--layout <parts>", "pp=16,dp=128,ep=64,rows=1; what is not named is chosen")
    .option("--schedule <name>", schedules.join(", "), choiceOption("--schedule", schedules))
    .option(
      "--precision <p>",
      "fp8 (default where the device has it) or bf16",
      choiceOption("--precision", ["fp8", "bf16"]),
    )
    .option("--batch-rows <n>", "rows in a step", numberOption("--batch-rows", 1, true), 15_360)
    .option(
      "--row-length <n>",
      "tokens in a row; 4096, or the model's context if that is shorter",
      numberOption("--row-length", 1, true),
    )
    .option("--tokens <n>", "tokens of the whole run", "14.8T")
    .option("--sweep", "rank every layout that the rules allow")
    .option("--serving", "plan prefill and decode instead of training")
    .option("--loads <file>", "with --serving: tokens by layer and expert, JSON or a run's events.jsonl")
    .option("--html <file>", "also write a page with the pipeline drawn")
    .option("--json", "print one JSON object")
    .addHelpText(
      "after",
      "\nExamples:\n  minke plan\n  minke plan --cluster h800x512 --layout pp=16,ep=32 --schedule 1f1b --html plan.html\n  minke plan --model model/config.json --cluster lab.json --sweep\n  minke plan --serving --loads runs/2026-11-21-nano-1/events.jsonl --model nano\n",
    )
    .action(async (flags: PlanFlags, command: Command) => {
      requireTogether(flags, (name) => command.getOptionValueSource(name) === "cli");
      const config = await readModel(flags.model);
      const cluster = await readCluster(flags.cluster);
      if (flags.serving === true) await serve(flags, config, cluster);
      else if (flags.sweep === true) sweep(flags, config, cluster);
      else await train(flags, config, cluster);
    });
}

/** What says nothing of a service. */
const trainingOnly = [
  ["layout", "--layout"],
  ["schedule", "--schedule"],
  ["precision", "--precision"],
  ["batchRows", "--batch-rows"],
  ["rowLength", "--row-length"],
  ["tokens", "--tokens"],
] as const;

/** Flags that would have no effect are refused: silence would look like an answer. */
function requireTogether(flags: PlanFlags, isGiven: (name: keyof PlanFlags) => boolean): void {
  const refuse = (what: string, why: string, fix: string): UsageError => new UsageError(what, { why, fix });
  const isServing = flags.serving === true;
  if (flags.loads !== undefined && !isServing)
    throw refuse(
      "--loads has no effect without --serving",
      "experts are copied where a model is served",
      "add --serving",
    );
  if (flags.sweep === true && isServing)
    throw refuse(
      "--sweep and --serving do not go together",
      "a sweep ranks layouts of training",
      "leave one out",
    );
  if (flags.html !== undefined && (isServing || flags.sweep === true))
    throw refuse(
      "--html has no effect here",
      "the page draws the pipeline of one layout of training",
      "leave out --serving and --sweep",
    );
  const idle = isServing ? trainingOnly.filter(([name]) => isGiven(name)).map(([, flag]) => flag) : [];
  if (idle.length > 0)
    throw refuse(`${idle.join(", ")} with --serving: no effect`, "that is of training", "leave it out");
}

/** More micro-batches than anybody can see in a drawing; the rest is counted, not drawn. */
const SIMULATED_PER_RANK = 128;

async function train(flags: PlanFlags, config: ModelConfig, cluster: Cluster): Promise<void> {
  const space = parseLayout(flags.layout, flags.schedule);
  const inputs = trainingInputs(flags, config, cluster);
  const layout = chooseLayout(flags, inputs, space);
  const plan = planTraining({ ...inputs, layout, simulatedPerRank: SIMULATED_PER_RANK });
  const report: PlanReport = {
    model: flags.model,
    config,
    cluster,
    plan,
    tokens: inputs.tokens,
    isPublished: isPublishedRun(flags.model, cluster, layout, inputs.size, config),
  };
  if (flags.html !== undefined) {
    const page = planPage(report);
    await explained(flags.html, "write the plan", () => writeFile(flags.html!, page));
  }
  if (flags.json === true) return print([JSON.stringify(planJson(report))]);
  print(trainingText(report));
  if (flags.html !== undefined) process.stderr.write(`${flags.html}\n`);
}

/** The published layout where the published run is asked for; otherwise the best with what is given. */
function chooseLayout(flags: PlanFlags, inputs: TrainingRun, space: SweepSpace): TrainingLayout {
  const isPublished = flags.model === "v3-671b" && inputs.cluster.name === "h800x2048";
  if (isPublished && flags.layout === undefined) {
    return { ...publishedLayout, ...(flags.schedule === undefined ? {} : { schedule: flags.schedule }) };
  }
  return bestLayout(inputs, space);
}

function sweep(flags: PlanFlags, config: ModelConfig, cluster: Cluster): void {
  const space = parseLayout(flags.layout, flags.schedule);
  const started = performance.now();
  const found = sweepLayouts(trainingInputs(flags, config, cluster), space);
  const seconds = (performance.now() - started) / 1000;
  print(flags.json === true ? [JSON.stringify(sweepJson(found, seconds))] : sweepText(found, seconds));
}

async function serve(flags: PlanFlags, config: ModelConfig, cluster: Cluster): Promise<void> {
  const loads = flags.loads === undefined ? null : await readLoads(flags.loads);
  const report = servingReport(config, cluster, loads);
  print(
    flags.json === true
      ? [JSON.stringify({ schema: 1, model: flags.model, cluster, ...report })]
      : servingText(flags.model, config, cluster, report),
  );
}

function trainingInputs(flags: PlanFlags, config: ModelConfig, cluster: Cluster): TrainingRun {
  const tokens = parseCount(flags.tokens);
  if (tokens === 0) {
    throw new UsageError("--tokens 0 is no run", {
      why: "days, device hours and money follow from the tokens of the whole run",
      fix: "write for example --tokens 14.8T",
      fields: { tokens: flags.tokens },
    });
  }
  return { config, cluster, size: stepSize(flags, config, cluster), tokens };
}

function print(lines: readonly string[]): void {
  process.stdout.write(`${lines.join("\n")}\n`);
}
