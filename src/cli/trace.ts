/** `minke trace`: what every rank of a run did when, as one timeline. */
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Command } from "commander";
import { DataError, formatDuration, formatShare } from "../base/index.ts";
import {
  accountTimeline,
  compareWithSimulation,
  ganttPage,
  type RankSpans,
  rankTrace,
  readRankTrace,
  type StepComparison,
  type TimelineAccount,
  withTravel,
} from "../parallel/index.ts";
import { explained } from "../run/index.ts";

interface TraceFlags {
  readonly html?: string;
  readonly json?: string;
}

export function traceCommand(): Command {
  return new Command("trace")
    .description("join what the ranks of a run recorded: bubble and exposed communication of each")
    .argument("<run>", "a run folder, or a folder of rank-N.json files")
    .option("--html <file>", "draw all ranks on one page that needs nothing but itself")
    .option("--json <file>", "write one trace for chrome://tracing and ui.perfetto.dev")
    .addHelpText("after", "\nExample:\n  minke trace runs/2026-11-22-micro-1 --html trace.html\n")
    .action(async (run: string, { html, json }: TraceFlags) => {
      const ranks = withTravel(await readRanks(run));
      if (html !== undefined) {
        const page = ganttPage({ title: `Ranks of ${run}`, source: "recorded by the ranks' queues", ranks });
        await explained(html, "draw the trace", () => writeFile(html, page));
      }
      if (json !== undefined) {
        await explained(json, "write the trace", () => writeFile(json, JSON.stringify(rankTrace(ranks))));
      }
      const lines = [
        ...accountLines(accountTimeline(ranks)),
        ...simulationLines(compareWithSimulation(ranks)),
      ];
      process.stdout.write(`${lines.join("\n")}\n`);
    });
}

async function readRanks(run: string): Promise<readonly RankSpans[]> {
  for (const folder of [join(run, "trace"), run]) {
    const names = (await namesIn(folder)).filter((name) => /^rank-\d+\.json$/.test(name));
    if (names.length === 0) continue;
    return Promise.all(
      names.map(async (name) => {
        const path = join(folder, name);
        return readRankTrace(await readFile(path, "utf8"), path);
      }),
    );
  }
  throw new DataError(`no rank of ${run} has recorded what it did`, {
    why: `there is no file rank-N.json in ${run} or its folder trace/`,
    fix: "train with --trace, then name the run's folder",
    fields: { run },
  });
}

async function namesIn(folder: string): Promise<readonly string[]> {
  try {
    return await readdir(folder);
  } catch {
    return [];
  }
}

/** `rank 0    computing 812 ms 61.0%   exposed 12 ms 0.9%   bubble 508 ms 38.1%`. */
export function accountLines({ start, end, ranks }: TimelineAccount): readonly string[] {
  const length = end - start;
  const cell = (name: string, time: number): string =>
    `${name} ${formatDuration(time)} ${formatShare(length === 0 ? 0 : time / length)}`.padEnd(28);
  const lines = ranks.map(({ rank, compute, exposedCommunication, bubble }) =>
    `rank ${rank}`
      .padEnd(10)
      .concat(cell("computing", compute), cell("exposed", exposedCommunication), cell("bubble", bubble))
      .trimEnd(),
  );
  return [`timeline  ${formatDuration(length)}`, ...lines];
}

/** The pipeline's part of the shortest recorded step, beside what the simulator makes of its chunks' times. */
export function simulationLines(comparison: StepComparison | null): readonly string[] {
  if (comparison === null) return [];
  const { plan, step, length, bubbles, simulatedLength, simulatedBubbles } = comparison;
  const mean = (values: readonly number[]): number =>
    values.reduce((sum, value) => sum + value, 0) / values.length;
  const ms = (seconds: number): string => `${Number((seconds * 1000).toPrecision(4))} ms`;
  const line = (what: string, whole: number, bubble: number): string =>
    `${what.padEnd(10)}${ms(whole)}, bubble ${ms(bubble)} ${formatShare(bubble / whole)}`;
  return [
    `pipeline  ${plan.schedule}, ${plan.microBatches} micro-batches, recorded step ${step + 1}`,
    line("measured", length, mean(bubbles)),
    line("simulated", simulatedLength, mean(simulatedBubbles)),
  ];
}
