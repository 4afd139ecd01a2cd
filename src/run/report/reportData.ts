/**
 * What both reports say, as data: figures, tables and curves out of the events. The pages only lay it out.
 *
 * Everything here comes from events.jsonl alone, so a report can be made again at any time, on any machine.
 */
import {
  type Environment,
  type EventOf,
  formatBytes,
  formatCount,
  formatDuration,
  formatInteger,
  formatQuantity,
  formatRate,
  formatScalar,
  formatShare,
  RunError,
  type RunEvent,
} from "../../base/index.ts";
import { type WorstLoad, worstLoads } from "../loadBalance.ts";
import type { RunHistory } from "../log/history.ts";
import { flattenConfig } from "../runDifferences.ts";
import { type RunSummary, summarize } from "../summary.ts";

export interface Fact {
  readonly name: string;
  readonly value: string;
}

/** Something worth knowing that happened: a warning, a skipped step, a pause, the end. */
export interface Incident {
  readonly step: number | null;
  readonly text: string;
}

export interface BaselineRow {
  readonly name: string;
  readonly bitsPerByte: number;
  readonly isModel: boolean;
}

export interface ReportData {
  readonly summary: RunSummary;
  readonly headline: readonly Fact[];
  readonly steps: readonly EventOf<"step.completed">[];
  readonly evaluations: readonly EventOf<"evaluation.completed">[];
  readonly biases: readonly EventOf<"router.bias">[];
  readonly samples: readonly EventOf<"sample.generated">[];
  readonly phases: readonly { readonly name: string; readonly seconds: number }[];
  /** The model among the baselines, best first; empty where no baseline was measured. */
  readonly baselines: readonly BaselineRow[];
  readonly worstLoads: readonly WorstLoad[];
  readonly incidents: readonly Incident[];
  readonly facts: Readonly<Record<"model" | "data" | "machine" | "memory" | "settings", readonly Fact[]>>;
  /** The first layer index that belongs to an MTP module. */
  readonly firstMtpLayer: number;
}

/** Steps in a window of the balance table; the first fifth of a run does not count. */
export const balanceWindow = 100;
/** What this project promises about expert load in such windows: at most, at least, times the mean. */
export const balanceBounds = { max: 1.15, min: 0.8 } as const;

/** @throws {RunError} if the history has no run.started */
export function reportData(history: RunHistory): ReportData {
  const started = history.lastOf("run.started");
  const summary = summarize(history);
  if (started === undefined || summary === null) {
    throw new RunError("these events hold no run.started", {
      why: "a report tells of a run, and the run's own description is in its first event",
      fix: "make the report from the events.jsonl of a run that has begun",
    });
  }
  const steps = history.of("step.completed");
  return {
    summary,
    headline: headline(summary),
    steps,
    evaluations: history.of("evaluation.completed").filter(({ split }) => split === "validation"),
    biases: history.of("router.bias"),
    samples: history.of("sample.generated"),
    phases: phaseSums(history.of("run.phase")),
    baselines: baselineRows(history, summary),
    worstLoads: worstLoads(steps, balanceWindow),
    incidents: incidents(history),
    facts: {
      model: modelFacts(started),
      data: dataFacts(history),
      machine: machineFacts(started, (history.lastOf("run.resumed") ?? started).environment),
      memory: memoryFacts(started, steps),
      settings: [...flattenConfig(summary.config)].map(([name, value]) => ({
        name,
        value: JSON.stringify(value),
      })),
    },
    firstMtpLayer: started.model.numHiddenLayers,
  };
}

/** `layer 3`, or `layer 6 (MTP)`. */
export function layerName(layer: number, { firstMtpLayer }: Pick<ReportData, "firstMtpLayer">): string {
  return layer >= firstMtpLayer ? `layer ${layer} (MTP)` : `layer ${layer}`;
}

const fact = (name: string, value: string): Fact => ({ name, value });
const orDash = (value: number | null, format: (value: number) => string): string =>
  value === null ? "–" : format(value);

function headline(summary: RunSummary): Fact[] {
  return [
    fact(
      "validation bits per byte",
      orDash(summary.bitsPerByte, (value) => value.toFixed(3)),
    ),
    fact("validation loss", orDash(summary.validationLoss, formatScalar)),
    fact("next-next token", orDash(summary.nextNextTokenAccuracy, formatShare)),
    fact("parameters", formatCount(summary.numParameters)),
    fact("steps", `${formatInteger(summary.step)} of ${formatInteger(summary.plannedSteps)}`),
    fact("tokens seen", formatCount(summary.tokensSeen)),
    fact(
      "speed",
      orDash(summary.tokensPerSecond, (value) => formatRate(value, "tok")),
    ),
    fact("share of peak", orDash(summary.shareOfPeak, formatShare)),
  ];
}

function modelFacts({ model }: EventOf<"run.started">): Fact[] {
  return [
    fact("parameters", formatInteger(model.numParameters)),
    fact("used by one token", formatInteger(model.numActiveParameters)),
    fact("training work per token", formatQuantity(model.trainFlopsPerToken, "FLOP")),
    fact("layers", formatInteger(model.numHiddenLayers)),
    fact("MTP modules", formatInteger(model.mtpDepth)),
    fact("routed experts per layer", formatInteger(model.nRoutedExperts)),
  ];
}

function dataFacts(history: RunHistory): Fact[] {
  const facts: Fact[] = [];
  const data = history.lastOf("data.prepared");
  const tokenizer = history.lastOf("tokenizer.trained");
  if (data !== undefined) {
    const split = ({ documents, bytes, tokens }: typeof data.train) =>
      `${formatInteger(documents)} documents, ${formatBytes(bytes)}, ${formatInteger(tokens)} tokens`;
    facts.push(
      fact("source", data.source),
      fact("training split", split(data.train)),
      fact("validation split", split(data.validation)),
      fact("vocabulary", formatInteger(data.vocabSize)),
    );
  }
  if (tokenizer !== undefined) facts.push(fact("bytes per token", tokenizer.bytesPerToken.toFixed(2)));
  return facts;
}

function machineFacts({ version, command }: EventOf<"run.started">, environment: Environment): Fact[] {
  const { peakFlopsPerSecond } = environment;
  return [
    fact("minke", version),
    fact("command", `minke ${command.join(" ")}`),
    fact("processor", environment.cpu),
    fact("threads", `${environment.numThreads} of ${environment.numCores}`),
    ...(environment.ranks === undefined
      ? []
      : [
          fact(
            "ranks",
            `${environment.ranks.tensorBytes.length} (${environment.ranks.layout}${environment.ranks.zero1 ? ", ZeRO-1" : ""})`,
          ),
        ]),
    fact("memory", formatBytes(environment.memoryBytes)),
    fact("system", `${environment.platform} ${environment.arch}, Node ${environment.node}`),
    fact(
      "backend",
      `${environment.backend}${environment.kernels === null ? "" : `, ${environment.kernels}`}`,
    ),
    fact("precision", environment.precision),
    fact(
      "peak",
      orDash(peakFlopsPerSecond, (value) => formatRate(value, "FLOP")),
    ),
  ];
}

function memoryFacts({ memory }: EventOf<"run.started">, steps: ReportData["steps"]): Fact[] {
  const most = (values: readonly number[]) => values.reduce((a, b) => Math.max(a, b), 0);
  const measured =
    steps.length === 0
      ? []
      : [
          fact("tensors, measured at most", formatBytes(most(steps.map(({ liveBytes }) => liveBytes)))),
          fact("process, measured at most", formatBytes(most(steps.map(({ rssBytes }) => rssBytes)))),
        ];
  return [
    fact("tensors, expected", formatBytes(memory.nativeBytes)),
    fact("process, expected", formatBytes(memory.rssBytes)),
    ...measured,
    ...Object.entries(memory.parts).map(([name, bytes]) => fact(`expected for ${name}`, formatBytes(bytes))),
    ...(memory.besideBf16 ?? []).map(({ name, bytes, bf16Bytes }) =>
      fact(`${name}, expected`, `${formatBytes(bytes)}, ${(bytes / bf16Bytes).toFixed(2)} of bf16`),
    ),
  ];
}

function phaseSums(phases: readonly EventOf<"run.phase">[]): { name: string; seconds: number }[] {
  const sums = new Map<string, number>();
  for (const { name, seconds } of phases) sums.set(name, (sums.get(name) ?? 0) + seconds);
  return [...sums].map(([name, seconds]) => ({ name, seconds }));
}

function baselineRows(history: RunHistory, summary: RunSummary): BaselineRow[] {
  const measured = history.lastOf("baselines.measured")?.baselines ?? [];
  if (measured.length === 0) return [];
  const rows = measured.map((one) => ({ ...one, isModel: false }));
  const model = { name: "this model", bitsPerByte: summary.bitsPerByte ?? Number.NaN, isModel: true };
  if (summary.bitsPerByte !== null) rows.push(model);
  return rows.sort((a, b) => a.bitsPerByte - b.bitsPerByte);
}

function incidents(history: RunHistory): Incident[] {
  const found: { readonly time: string; readonly incident: Incident }[] = [];
  const note = <E extends RunEvent>(events: readonly E[], tell: (event: E) => string): void => {
    for (const event of events) {
      const step = "step" in event ? event.step : null;
      found.push({ time: event.time, incident: { step, text: tell(event) } });
    }
  };
  note(history.of("run.warning"), ({ what, why }) => `Warning: ${what} (${why})`);
  note(
    history.of("step.skipped"),
    ({ reason, tensor }) => `Skipped: ${reason}${tensor === null ? "" : ` in ${tensor}`}`,
  );
  note(history.of("checkpoint.damaged"), ({ path, reason }) => `Damaged checkpoint ${path}: ${reason}`);
  note(history.of("run.interrupted"), ({ signal }) => `Interrupted by ${signal}`);
  note(history.of("run.resumed"), ({ checkpoint }) => `Resumed from ${checkpoint}`);
  note(history.of("run.failed"), ({ error }) => `Failed: ${error.what}`);
  note(history.of("run.completed"), ({ seconds }) => `Completed after ${formatDuration(seconds)}`);
  return found
    .sort((a, b) => (a.time < b.time ? -1 : a.time > b.time ? 1 : 0))
    .map(({ incident }) => incident);
}
