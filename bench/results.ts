/** Where measured rows go: dated JSON lines, each with the machine, the versions and the commit that it stands for. */
import { execFileSync } from "node:child_process";
import { appendFileSync, globSync, mkdirSync, readFileSync } from "node:fs";
import { cpus, loadavg, totalmem } from "node:os";
import { dirname, join } from "node:path";

export interface Place {
  /** ISO, of the run's beginning. */
  readonly date: string;
  readonly commit: string;
  readonly cpu: string;
  readonly numCores: number;
  readonly memoryBytes: number;
  readonly platform: string;
  readonly node: string;
}

/** What is measured. */
export type ResultRow = Readonly<Record<string, unknown>> & { readonly bench: string };

/** One line of a result file. */
export type RecordedRow = ResultRow & Place & { readonly command: string; readonly load: number };

export function describePlace(root: string): Place {
  const git = (...args: string[]): string =>
    execFileSync("git", args, { cwd: root, encoding: "utf8" }).trim();
  const isChanged = git("status", "--porcelain", "--untracked-files=no") !== "";
  return {
    date: new Date().toISOString(),
    commit: git("rev-parse", "--short", "HEAD") + (isChanged ? "+changes" : ""),
    cpu: cpus()[0]?.model ?? "unknown",
    numCores: cpus().length,
    memoryBytes: totalmem(),
    platform: `${process.platform} ${process.arch}`,
    node: process.version,
  };
}

/** bench/results/2026-11-22-some-processor.jsonl */
export function resultFile(root: string, { date, cpu }: Place): string {
  const machine = cpu
    .toLowerCase()
    .replaceAll(/\(r\)|\(tm\)/g, "")
    .replaceAll(/[^a-z0-9]+/g, "-")
    .replaceAll(/^-|-$/g, "");
  return join(root, "bench", "results", `${date.slice(0, 10)}-${machine || "unknown"}.jsonl`);
}

/**
 * Written at once: what was measured stays, whatever ends the run. The load says how far to trust it. Where the clone
 * lies on this machine, which messages of failed rows name, is left out.
 */
export function appendRow(file: string, command: string, row: ResultRow, place: Place): void {
  mkdirSync(dirname(file), { recursive: true });
  const load = Number(loadavg()[0]!.toFixed(2));
  const root = dirname(dirname(dirname(file)));
  const line = JSON.stringify({ ...row, command, load, ...place }).replaceAll(`${root}/`, "");
  appendFileSync(file, `${line}\n`);
}

/** Every row that is recorded, in the order of the files' names and then as they came. */
export function readRows(root: string): readonly RecordedRow[] {
  return globSync("bench/results/*.jsonl", { cwd: root })
    .toSorted()
    .flatMap((path) => readFileSync(join(root, path), "utf8").trimEnd().split("\n"))
    .map((line) => JSON.parse(line) as RecordedRow);
}
