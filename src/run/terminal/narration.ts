/** What an event says to a person: the lines above the progress line. Pure; terminal.ts prints them. */
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
  type JsonObject,
  type RunEvent,
  type RunEventType,
} from "../../base/index.ts";
import { flattenConfig } from "../runDifferences.ts";
import { printable } from "./printable.ts";

export interface NarratedLine {
  readonly text: string;
  readonly tone: "plain" | "muted" | "good" | "warning" | "error";
}

/**
 * @param columns  where the settings of a run are folded; other lines are as long as they are
 * @returns        nothing for events that only move the progress line
 */
export function narrate(event: RunEvent, columns: number): NarratedLine[] {
  const narrator = narrators[event.type] as (event: RunEvent, columns: number) => NarratedLine[];
  return narrator(event, columns).map(({ text, tone }) => ({ text: printable(text), tone }));
}

const plain = (text: string): NarratedLine => ({ text, tone: "plain" });
const muted = (text: string): NarratedLine => ({ text, tone: "muted" });
const warning = (text: string): NarratedLine => ({ text, tone: "warning" });
const label = (name: string): string => name.padEnd(12);

type Narrator<T extends RunEventType> = (event: EventOf<T>, columns: number) => NarratedLine[];

const narrators: { readonly [T in RunEventType]: Narrator<T> } = {
  "run.started": startLines,
  "run.resumed": ({ step, checkpoint, config, environment, plannedSteps, repeatedSteps }, columns) => [
    plain(`${label("resumed")}after step ${step} from ${checkpoint}, ${plannedSteps} steps planned`),
    ...rankLines(environment),
    ...(repeatedSteps === 0
      ? []
      : [muted(`${label("")}${repeatedSteps} steps after the checkpoint are done again`)]),
    ...settingLines(config, columns),
  ],
  "tokenizer.trained": ({ vocabSize, bytesPerToken, seconds }) => [
    plain(
      `${label("tokenizer")}${formatInteger(vocabSize)} tokens, ${bytesPerToken.toFixed(2)} bytes per token, ${formatDuration(seconds)}`,
    ),
  ],
  "data.prepared": ({ documents, bytes, tokens, train, validation, seconds }) => [
    plain(
      `${label("data")}${formatInteger(documents)} documents, ${formatBytes(bytes)}, ${formatCount(tokens)} tokens (${formatCount(train.tokens)} to train, ${formatCount(validation.tokens)} to validate), ${formatDuration(seconds)}`,
    ),
  ],
  "baselines.measured": ({ baselines }) =>
    baselines.map(({ name, bitsPerByte }) =>
      muted(`${label("baseline")}${bitsPerByte.toFixed(3)} bits per byte: ${name}`),
    ),
  "step.completed": () => [],
  "step.skipped": ({ step, reason, tensor, loss }) => {
    const where = tensor === null ? "" : ` in ${tensor}`;
    const value = loss === null ? "" : `, loss ${formatScalar(loss)}`;
    return [warning(`${label("skipped")}step ${step}: ${reason}${where}${value}`)];
  },
  "router.bias": () => [],
  "evaluation.completed": (event) => [plain(evaluationText(event))],
  "sample.generated": ({ step, prompt, text }) =>
    `${prompt}|${text}`
      .split(/\r?\n/)
      .map((line, index) => plain(`${label(index === 0 ? `sample ${step}` : "")}${line}`)),
  "checkpoint.written": ({ path, bytes, seconds }) => [
    muted(`${label("checkpoint")}${path}, ${formatBytes(bytes)}, ${formatDuration(seconds)}`),
  ],
  "checkpoint.removed": ({ path }) => [muted(`${label("removed")}${path}`)],
  "checkpoint.damaged": ({ path, reason, fallback }) => {
    const next = fallback === null ? "there is no other" : `using ${fallback} instead`;
    return [warning(`${label("damaged")}${path}: ${reason}; ${next}`)];
  },
  "run.phase": ({ name, seconds }) => [muted(`${label("phase")}${name} took ${formatDuration(seconds)}`)],
  "run.warning": ({ what, why, fix }) => [
    warning(`${label("warning")}${what}`),
    muted(`${label("")}why: ${why}`),
    ...(fix === null ? [] : [muted(`${label("")}fix: ${fix}`)]),
  ],
  "run.interrupted": ({ step, signal, checkpoint, resume }) => {
    const saved = checkpoint === null ? "without a checkpoint" : `saved as ${checkpoint}`;
    return [
      warning(`${label("interrupted")}by ${signal} after step ${step}, ${saved}`),
      plain(`${label("go on with")}${resume}`),
    ];
  },
  "run.completed": ({ step, tokensSeen, seconds }) => {
    const work = `${formatInteger(step)} steps, ${formatCount(tokensSeen)} tokens`;
    return [{ text: `${label("done")}${work}, ${formatDuration(seconds)}`, tone: "good" }];
  },
  "run.failed": ({ step, error }) => [
    { text: `${label("failed")}after step ${step}: ${error.name}: ${error.what}`, tone: "error" },
    plain(`${label("")}why: ${error.why}`),
    plain(`${label("")}fix: ${error.fix}`),
  ],
};

function startLines(event: EventOf<"run.started">, columns: number): NarratedLine[] {
  const { model, environment: machine, memory } = event;
  const peak =
    machine.peakFlopsPerSecond === null ? "" : `, peak ${formatRate(machine.peakFlopsPerSecond, "FLOP")}`;
  const parts = Object.entries(memory.parts).map(([name, bytes]) => `${name} ${formatBytes(bytes)}`);
  return [
    plain(`${label("run")}${event.runId}, minke ${event.version}`),
    plain(
      `${label("model")}${formatCount(model.numParameters)} parameters, ${formatCount(model.numActiveParameters)} per token, ${formatQuantity(model.trainFlopsPerToken, "FLOP")} to train on a token`,
    ),
    plain(
      `${label("machine")}${machine.cpu}, ${machine.numThreads} of ${machine.numCores} threads, ${machine.backend}${machine.kernels === null ? "" : ` ${machine.kernels}`}, ${machine.precision}${peak}`,
    ),
    ...rankLines(machine),
    plain(
      `${label("memory")}${formatBytes(memory.rssBytes)} expected; tensors ${formatBytes(memory.nativeBytes)}: ${parts.join(", ")}`,
    ),
    ...(memory.besideBf16 ?? []).map(({ name, bytes, bf16Bytes }) =>
      plain(`${label("")}${name} ${formatBytes(bytes)}, ${(bytes / bf16Bytes).toFixed(2)} of bf16`),
    ),
    plain(
      `${label("plan")}${formatInteger(event.plannedSteps)} steps, ${formatCount(event.plannedTokens)} tokens`,
    ),
    ...settingLines(event.config, columns),
  ];
}

function rankLines({ ranks }: Environment): NarratedLine[] {
  if (ranks === undefined) return [];
  const { layout, zero1, tensorBytes } = ranks;
  const each = tensorBytes.map(formatBytes).join(", ");
  return [
    plain(
      `${label("ranks")}${tensorBytes.length} (${layout}${zero1 ? ", ZeRO-1" : ""}), tensors of each ${each}`,
    ),
  ];
}

function settingLines(config: JsonObject, columns: number): NarratedLine[] {
  const settings = [...flattenConfig(config)].map(([key, value]) => `${key}=${JSON.stringify(value)}`);
  return fold(settings, columns - label("").length).map((text, index) =>
    muted(label(index === 0 ? "settings" : "") + text),
  );
}

function evaluationText(event: EventOf<"evaluation.completed">): string {
  const figures = [
    event.loss === null ? "loss not finite" : `loss ${formatScalar(event.loss)}`,
    ...(event.bitsPerByte === null ? [] : [`${event.bitsPerByte.toFixed(3)} bits per byte`]),
    ...(event.nextNextTokenAccuracy === null
      ? []
      : [`next-next token ${formatShare(event.nextNextTokenAccuracy)} right`]),
  ];
  return `${label(event.split)}step ${event.step}: ${figures.join(", ")}`;
}

/** As many words to a line as fit; a word that is longer than a line has one to itself. */
function fold(words: readonly string[], width: number): string[] {
  const lines: string[] = [];
  for (const word of words) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= width)
      lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}
