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

/** A whole step can be taken in FP8 too. */
export type StepFlags = Omit<BenchFlags, "precision"> & {
  readonly precision: BenchFlags["precision"] | "fp8";
};

/** In which registers a precision multiplies: FP8 is decoded to bf16. */
export function peakKind(precision: StepFlags["precision"]): BenchFlags["precision"] {
  return precision === "f32" ? "f32" : "bf16";
}

type Figure = string | number | null;

/** One measured row. A figure is named with its unit; shares are of the peak measured in the same run. */
export interface BenchRow {
  readonly bench: "kernels" | "ops" | "step" | "peers" | "gemm" | "trace" | "costs" | "messages" | "ranks";
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
  const columns = row.bench === "ops" ? opColumns : row.bench === "trace" ? traceColumns : null;
  if (columns !== null && row["calls"] !== undefined) return tableLine(columns, row);
  const { bench: _, name, ...figures } = row;
  const known = Object.entries(figures).filter(
    (entry): entry is [string, string | number] => entry[1] !== null,
  );
  return `${name.padEnd(40)} ${known.map(([key, value]) => `${key} ${figureText(key, value)}`).join("  ")}`;
}

interface Column {
  readonly title: string;
  readonly figure: string;
  readonly write: (value: number) => string;
}

const rates: readonly Column[] = [
  { title: "GFLOP/s", figure: "gflops", write: (value) => value.toFixed(1) },
  { title: "of peak", figure: "peakShare", write: formatShare },
  { title: "GB/s", figure: "gigabytesPerSecond", write: (value) => value.toFixed(1) },
];

/** Of the profiler's table. */
const traceColumns: readonly Column[] = [
  { title: "ms", figure: "milliseconds", write: (value) => value.toFixed(2) },
  { title: "of step", figure: "stepShare", write: formatShare },
  { title: "calls", figure: "calls", write: String },
  ...rates,
];

/** Of the table of ops where the model runs them. */
const opColumns: readonly Column[] = [
  { title: "us a call", figure: "microseconds", write: (value) => value.toFixed(1) },
  { title: "calls", figure: "calls", write: String },
  ...rates,
];

export const TRACE_HEADER: string = tableHeader(traceColumns);
export const OPS_HEADER: string = `${tableHeader(opColumns)}  in`;

function tableHeader(columns: readonly Column[]): string {
  return cells(
    "op",
    columns.map(({ title }) => title),
  );
}

function tableLine(columns: readonly Column[], row: BenchRow): string {
  const texts = columns.map(({ figure, write }) => {
    const value = row[figure];
    return typeof value === "number" ? write(value) : "-";
  });
  const program = row["program"];
  return cells(row.name, texts) + (program === undefined ? "" : `  ${program}`);
}

function cells(name: string, texts: readonly string[]): string {
  return name.padEnd(26) + texts.map((text) => text.padStart(10)).join("");
}

function figureText(key: string, value: string | number): string {
  if (typeof value === "string") return value;
  if (/bytes$/i.test(key)) return formatBytes(value);
  if (/share$/i.test(key)) return formatShare(value);
  return String(Math.abs(value) >= 1000 ? Math.round(value) : Number(value.toPrecision(4)));
}
