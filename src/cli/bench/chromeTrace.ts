/**
 * One step's trace for chrome://tracing and ui.perfetto.dev: one track for the queue's commands, one for phases, one for
 * JavaScript. The format's times are in microseconds.
 */
import type { TracedCommand } from "../../tensor/index.ts";
import { phasesOf, placesOf } from "./opTable.ts";

/** What JavaScript did, in nanoseconds since the trace began. */
export interface Slice {
  readonly name: string;
  readonly begin: number;
  readonly end: number;
}

interface TraceEvent {
  readonly name: string;
  readonly ph: "X" | "M";
  readonly pid: 1;
  readonly tid: number;
  readonly ts?: number;
  readonly dur?: number;
  readonly cat?: string;
  readonly args?: Readonly<Record<string, string | number>>;
}

export interface ChromeTrace {
  readonly displayTimeUnit: "ms";
  readonly traceEvents: readonly TraceEvent[];
}

const QUEUE = 1;
const PHASES = 2;
const JAVASCRIPT = 3;

export function chromeTrace(commands: readonly TracedCommand[], javascript: readonly Slice[]): ChromeTrace {
  const phases = phasesOf(commands);
  const places = placesOf(commands);
  const names = [
    { tid: QUEUE, name: "queue (all threads)" },
    { tid: PHASES, name: "phase" },
    { tid: JAVASCRIPT, name: "JavaScript" },
  ];
  return {
    displayTimeUnit: "ms",
    traceEvents: [
      ...names.map(
        ({ tid, name }): TraceEvent => ({ name: "thread_name", ph: "M", pid: 1, tid, args: { name } }),
      ),
      ...commands.map((command, i) => commandEvent(command, phases[i]!, places[i]!)),
      ...phaseSlices(commands, phases).map((slice) => sliceEvent(slice, PHASES)),
      ...javascript.map((slice) => sliceEvent(slice, JAVASCRIPT)),
    ],
  };
}

function commandEvent(command: TracedCommand, phase: string, place: string): TraceEvent {
  const { op, label, begin, end, flops, bytes } = command;
  const nanoseconds = Math.max(1, end - begin);
  return {
    ...sliceEvent({ name: op, begin, end }, QUEUE),
    cat: phase,
    args: {
      phase,
      ...(place === "" ? {} : { place }),
      ...(label === "" ? {} : { parameter: label }),
      ...(flops === 0 ? {} : { "GFLOP/s": rounded(flops / nanoseconds) }),
      "GB/s": rounded(bytes / nanoseconds),
    },
  };
}

/** Runs of commands of one phase. */
function phaseSlices(commands: readonly TracedCommand[], phases: readonly string[]): readonly Slice[] {
  const slices: Slice[] = [];
  for (const [i, { begin, end }] of commands.entries()) {
    const last = slices.at(-1);
    if (last !== undefined && last.name === phases[i]) slices[slices.length - 1] = { ...last, end };
    else slices.push({ name: phases[i]!, begin, end });
  }
  return slices;
}

function sliceEvent({ name, begin, end }: Slice, tid: number): TraceEvent {
  return { name, ph: "X", pid: 1, tid, ts: begin / 1000, dur: (end - begin) / 1000 };
}

function rounded(value: number): number {
  return Number(value.toPrecision(4));
}
