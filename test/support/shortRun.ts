/**
 * Fifty steps of `micro` on a tiny text, to the end or to a violent one, and the fingerprint of what they left.
 *
 * The recipe is the preset's; only the batch is small, so that a run takes seconds.
 */
import { createHash } from "node:crypto";
import { watch } from "node:fs";
import { mkdir, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { RunEvent } from "../../src/base/index.ts";
import { collectHistory, type RunHistory, readEvents } from "../../src/run/index.ts";
import { minke, type Outcome, startMinke } from "./minke.ts";
import { makeRandom } from "./random.ts";

export const STEPS = 50;

const settings = [
  "data.tokenizer=bytes",
  "rowLength=32",
  "batchRows=2",
  "microBatchRows=1",
  "evaluate.everySteps=20",
  "evaluate.rows=2",
];

/**
 * The command line of a run of its own.
 *
 * @param saveEvery  steps between checkpoints; has no influence on the bits
 */
export function trainArguments(text: string, run: string, threads: number, saveEvery: number = 20): string[] {
  const set = [...settings, `checkpoint.everySteps=${saveEvery}`].flatMap((setting) => ["--set", setting]);
  const fixed = ["--preset", "micro", "--steps", String(STEPS), "--seed", "7", "--json"];
  return ["train", "--data", text, "--run", run, "--threads", String(threads), ...fixed, ...set];
}

export function resumeArguments(run: string, threads: number): string[] {
  return ["train", "--run", run, "--resume", "--threads", String(threads), "--json"];
}

/** sha256 of the weights and of the optimizer's state after a step. */
export async function fingerprint(run: string, step: number = STEPS): Promise<Record<string, string>> {
  const folder = join(run, "checkpoints", `step-${step}`);
  const hash = async (name: string): Promise<string> =>
    createHash("sha256")
      .update(await readFile(join(folder, name)))
      .digest("hex");
  return { model: await hash("model.safetensors"), optimizer: await hash("optimizer.safetensors") };
}

export function historyOf(run: string): Promise<RunHistory> {
  return collectHistory(readEvents(join(run, "events.jsonl")));
}

/** When to strike: some milliseconds after a number of steps, or as soon as a checkpoint begins to be written. */
type Instant =
  | { readonly kind: "step"; readonly steps: number; readonly afterMs: number }
  | { readonly kind: "writing"; readonly afterMs: number };

/** Lets a run live until the instant and kills it; it may have ended before. */
async function killAt(args: readonly string[], run: string, instant: Instant): Promise<Outcome> {
  await mkdir(join(run, "checkpoints"), { recursive: true });
  const { child, finished } = await startMinke(args, { cwd: run });
  const struck = instant.kind === "step" ? seenSteps(child.stdout, instant.steps) : seenWriting(run);
  await Promise.race([struck.then(() => sleep(instant.afterMs)), finished]);
  child.kill("SIGKILL");
  return finished;
}

/** True if the last death left a checkpoint half written. */
async function leftHalfWritten(run: string): Promise<boolean> {
  return (await readdir(join(run, "checkpoints"))).some((name) => name.startsWith(".writing-"));
}

export interface Survival {
  readonly deaths: number;
  /** Deaths that left a checkpoint half written. */
  readonly halfWritten: number;
  /** The runs that came to their end in spite of it. */
  readonly runs: readonly string[];
}

/**
 * Kills runs at random instants and resumes them, until there were so many deaths and one of them hit the writing of a
 * checkpoint. A run that ends before its killer comes is followed by another one.
 */
export async function surviveDeaths(
  wanted: number,
  folder: string,
  text: string,
  seed: number,
): Promise<Survival> {
  const random = makeRandom(seed);
  const runs: string[] = [];
  let [deaths, halfWritten] = [0, 0];
  for (let life = 0; deaths < wanted || halfWritten === 0; runs.push(join(folder, `life-${life++}`))) {
    const run = join(folder, `life-${life}`);
    let args = trainArguments(text, run, 2, 4);
    while (true) {
      const isEnough = deaths >= wanted && halfWritten > 0;
      const { code, stderr } = isEnough
        ? await minke(args, { cwd: folder })
        : await killAt(args, run, drawInstant(random, deaths));
      if (code === 0) break;
      if (code !== 137 || deaths === 4 * wanted)
        throw new Error(`death ${deaths}: exit code ${code}\n${stderr}`);
      deaths++;
      if (await leftHalfWritten(run)) halfWritten++;
      args = resumeArguments(run, 1 + (deaths % 2));
    }
  }
  return { deaths, halfWritten, runs };
}

/** Every other death aims at a checkpoint. */
function drawInstant(random: () => number, death: number): Instant {
  const afterMs = Math.floor(random() * 12);
  return death % 2 === 1
    ? { kind: "writing", afterMs }
    : { kind: "step", steps: 1 + Math.floor(random() * 9), afterMs };
}

/** Resolves when the events of so many steps of this life have come. */
export function seenSteps(stdout: NodeJS.ReadableStream | null, steps: number): Promise<void> {
  return new Promise((resolve) => {
    let rest = "";
    let seen = 0;
    stdout?.on("data", (text: string) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      const events = lines.map((line) => JSON.parse(line) as RunEvent);
      seen += events.filter(({ type }) => type === "step.completed").length;
      if (seen >= steps) resolve();
    });
  });
}

function seenWriting(run: string): Promise<void> {
  return new Promise((resolve) => {
    const watcher = watch(join(run, "checkpoints"), (_kind, name) => {
      if (name?.startsWith(".writing-") !== true) return;
      watcher.close();
      resolve();
    });
  });
}
