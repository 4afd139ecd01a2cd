/** What every bench is told, what it prints, and how a row reads in a terminal. */
import { formatBytes, formatShare } from "../../base/index.ts";

export interface BenchFlags {
  readonly preset: string;
  readonly precision: "f32" | "bf16";
  readonly threads?: number;
  readonly rounds: number;
  readonly json?: boolean;
  /** Where `bench step` writes its Chrome trace. */
  readonly trace?: string;
}

type Figure = string | number | null;

/** One measured row. A figure is named with its unit; shares are of the peak measured in the same run. */
export interface BenchRow {
  readonly bench: "kernels" | "step" | "peers" | "gemm" | "trace" | "costs";
  readonly name: string;
  readonly [figure: string]: Figure;
}

/** Best and middle of many: the best is least disturbed by the machine's other work, the median says by how much. */
export interface Timing {
  readonly best: number;
  readonly median: number;
}

export function timing(seconds: readonly number[]): Timing {
  const sorted = seconds.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
  return { best: sorted[0]!, median };
}

/** `training step of nano, bf16    tokensPerSecond 4034  share 34.1%`: a figure that is not known is left out. */
export function rowText(row: BenchRow): string {
  if (row.bench === "trace" && row["calls"] !== undefined) return traceLine(row);
  const { bench: _, name, ...figures } = row;
  const known = Object.entries(figures).filter(
    (entry): entry is [string, string | number] => entry[1] !== null,
  );
  return `${name.padEnd(40)} ${known.map(([key, value]) => `${key} ${figureText(key, value)}`).join("  ")}`;
}

/** Columns of the profiler's table, op by op. */
export const TRACE_HEADER: string = traceColumns([
  "op",
  "ms",
  "of step",
  "calls",
  "GFLOP/s",
  "of peak",
  "GB/s",
]);

function traceLine({
  name,
  milliseconds,
  stepShare,
  calls,
  gflops,
  peakShare,
  gigabytesPerSecond,
}: BenchRow): string {
  const cell = (value: Figure | undefined, write: (value: number) => string): string =>
    typeof value === "number" ? write(value) : "-";
  return traceColumns([
    name,
    cell(milliseconds, (value) => value.toFixed(2)),
    cell(stepShare, formatShare),
    cell(calls, String),
    cell(gflops, (value) => value.toFixed(1)),
    cell(peakShare, formatShare),
    cell(gigabytesPerSecond, (value) => value.toFixed(1)),
  ]);
}

function traceColumns([name = "", ...cells]: readonly string[]): string {
  return name.padEnd(26) + cells.map((text) => text.padStart(10)).join("");
}

function figureText(key: string, value: string | number): string {
  if (typeof value === "string") return value;
  if (/bytes$/i.test(key)) return formatBytes(value);
  if (/share$/i.test(key)) return formatShare(value);
  return String(Math.abs(value) >= 1000 ? Math.round(value) : Number(value.toPrecision(4)));
}
