/**
 * The live progress line: what is known, and how it is told in so many columns. Pure; terminal.ts draws it.
 */
import {
  formatDuration,
  formatRate,
  formatScalar,
  formatShare,
  type RunEvent,
  type StepCompleted,
} from "../../base/index.ts";

export interface Progress {
  readonly plannedSteps: number;
  /** The last completed step; undefined before the first. */
  readonly last: StepCompleted | undefined;
  /** Time of the first and the last step of this process, ms since 1970, and the steps between them. */
  readonly firstMs: number;
  readonly lastMs: number;
  readonly stepsBetween: number;
}

export const noProgress: Progress = {
  plannedSteps: 0,
  last: undefined,
  firstMs: 0,
  lastMs: 0,
  stepsBetween: 0,
};

export function advance(progress: Progress, event: RunEvent): Progress {
  switch (event.type) {
    case "run.started":
    case "run.resumed":
      return { ...noProgress, plannedSteps: event.plannedSteps };
    case "step.completed": {
      const now = Date.parse(event.time);
      const isFirst = progress.last === undefined;
      return {
        plannedSteps: progress.plannedSteps,
        last: event,
        firstMs: isFirst ? now : progress.firstMs,
        lastMs: now,
        stepsBetween: isFirst ? 0 : progress.stepsBetween + event.step - progress.last.step,
      };
    }
    default:
      return progress;
  }
}

/** Seconds to the last planned step, at the pace so far with all evaluations and checkpoints; null if unknown. */
export function secondsLeft({ plannedSteps, last, firstMs, lastMs, stepsBetween }: Progress): number | null {
  if (last === undefined || stepsBetween === 0) return null;
  const secondsPerStep = (lastMs - firstMs) / 1000 / stepsBetween;
  return Math.max(0, plannedSteps - last.step) * secondsPerStep;
}

export interface LineStyle {
  readonly hasColor: boolean;
  readonly hasBar: boolean;
}

/** A part of the line. The larger the rank, the sooner it is left out of a narrow line. */
interface Field {
  readonly rank: number;
  readonly label: string;
  readonly value: string;
}

/**
 * The line in at most `columns` columns; empty before the first step.
 *
 * What does not fit is left out, least important first: bar, share of peak, MTP loss, expert load, speed, bits per
 * byte, time left, loss. The step always stays, cut if need be.
 */
export function renderLine(progress: Progress, columns: number, style: LineStyle): string {
  if (progress.last === undefined) return "";
  const fields = fieldsOf(progress, progress.last, style);
  while (fields.length > 1 && widthOf(fields) > columns) {
    const least = fields.reduce((worst, field) => (field.rank > worst.rank ? field : worst));
    fields.splice(fields.indexOf(least), 1);
  }
  if (widthOf(fields) > columns) return textOf(fields[0]!).slice(0, columns);
  return fields.map((field) => (style.hasColor ? coloured(field) : textOf(field))).join(separator);
}

const separator = "  ";
const barWidth = 16;

function fieldsOf(progress: Progress, last: StepCompleted, style: LineStyle): Field[] {
  const planned = String(progress.plannedSteps);
  const left = secondsLeft(progress);
  const fields: Field[] = [
    { rank: 0, label: "", value: `${String(last.step).padStart(planned.length)}/${planned}` },
  ];
  if (style.hasBar) fields.push({ rank: 9, label: "", value: bar(last.step / progress.plannedSteps) });
  fields.push(
    { rank: 1, label: "loss ", value: formatScalar(last.mainLoss) },
    { rank: 3, label: "bpb ", value: last.bitsPerByte.toFixed(3) },
    { rank: 4, label: "", value: formatRate(last.tokensPerSecond, "tok") },
  );
  if (last.shareOfPeak !== null)
    fields.push({ rank: 7, label: "peak ", value: formatShare(last.shareOfPeak) });
  if (last.expertLoad.length > 0)
    fields.push({ rank: 5, label: "max-vio ", value: last.maxViolation.toFixed(2) });
  if (last.mtpLosses.length > 0)
    fields.push({ rank: 6, label: "mtp ", value: formatScalar(last.mtpLosses[0]!) });
  if (left !== null) fields.push({ rank: 2, label: "ETA ", value: timeLeft(left) });
  return fields;
}

function timeLeft(seconds: number): string {
  return seconds < 60 ? `${Math.ceil(seconds)}s` : formatDuration(seconds);
}

function bar(share: number): string {
  const done = Math.round(Math.min(1, share) * barWidth);
  return "━".repeat(done) + "╌".repeat(barWidth - done);
}

const textOf = ({ label, value }: Field): string => label + value;

const widthOf = (fields: readonly Field[]): number =>
  fields.reduce((width, field) => width + textOf(field).length, 0) + separator.length * (fields.length - 1);

const coloured = ({ rank, label, value }: Field): string => {
  if (rank === 0) return `\x1b[1m${value}\x1b[22m`;
  return label === "" ? `\x1b[2m${value}\x1b[22m` : `\x1b[2m${label}\x1b[22m${value}`;
};
