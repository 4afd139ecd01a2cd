/**
 * Where a step's time goes: traced commands added up op by op.
 *
 * Pure functions over what was traced; the trace's clock is in nanoseconds, everything here in seconds.
 */
import type { TracedCommand } from "../../tensor/index.ts";

export interface OpSum {
  readonly op: string;
  readonly calls: number;
  /** Of all calls together. */
  readonly seconds: number;
  /** Null where the op counts no FLOPs, as those that only move data. */
  readonly gflops: number | null;
  readonly peakShare: number | null;
  readonly gigabytesPerSecond: number;
}

export interface OpRow extends OpSum {
  /** Of the step from its first command's begin to its last one's end. */
  readonly stepShare: number;
}

export interface StepProfile {
  readonly seconds: number;
  /** Most expensive first. */
  readonly ops: readonly OpRow[];
  /** Time in which no command ran: mostly, the queue waited for JavaScript to read the record and enqueue the update. */
  readonly idleSeconds: number;
}

/** @param peak  multiplications and additions a second that registers reach */
export function profileStep(commands: readonly TracedCommand[], peak: number): StepProfile {
  if (commands.length === 0) return { seconds: 0, ops: [], idleSeconds: 0 };
  const seconds = (commands.at(-1)!.end - commands[0]!.begin) / 1e9;
  const ops = sumByOp(commands, peak).map((sum): OpRow => ({ ...sum, stepShare: sum.seconds / seconds }));
  const busy = ops.reduce((sum, op) => sum + op.seconds, 0);
  return { seconds, ops, idleSeconds: seconds - busy };
}

/** Time, FLOPs and bytes of each op over all its calls, most expensive first. */
export function sumByOp(commands: readonly TracedCommand[], peak: number): readonly OpSum[] {
  const sums = [...groupByOp(commands)].map(([op, calls]): OpSum => {
    const sum = (figure: (command: TracedCommand) => number): number =>
      calls.reduce((total, command) => total + figure(command), 0);
    const seconds = sum(({ begin, end }) => end - begin) / 1e9;
    const flops = sum((command) => command.flops);
    return {
      op,
      calls: calls.length,
      seconds,
      gflops: flops === 0 ? null : flops / seconds / 1e9,
      peakShare: flops === 0 ? null : flops / seconds / peak,
      gigabytesPerSecond: sum(({ bytes }) => bytes) / seconds / 1e9,
    };
  });
  return sums.toSorted((a, b) => b.seconds - a.seconds);
}

function groupByOp(commands: readonly TracedCommand[]): ReadonlyMap<string, readonly TracedCommand[]> {
  const groups = new Map<string, TracedCommand[]>();
  for (const command of commands) {
    const group = groups.get(command.op);
    if (group === undefined) groups.set(command.op, [command]);
    else group.push(command);
  }
  return groups;
}

export type Phase = "zero" | "forward" | "backward" | "norm" | "update";

/**
 * The part of the step that each command belongs to, told from the ops that open one: a product is the same op
 * forward and backward. Micro-batches go forward and backward in turn.
 *
 * @param commands  of one step: the ops before its first embedding would count as the update of the step before
 */
export function phasesOf(commands: readonly Pick<TracedCommand, "op">[]): readonly Phase[] {
  let phase: Phase = "zero";
  return commands.map(({ op }) => {
    if (op === "embedding") phase = "forward";
    else if (/Backward$|Grad$|GradWeight$/.test(op)) phase = "backward";
    else if (op === "sumSquares") phase = "norm";
    else if (op === "adamw" || op === "muon") phase = "update";
    return phase;
  });
}

/** The place of each command: its own label, else that of the command before it, which is nearly always its layer. */
export function placesOf(commands: readonly Pick<TracedCommand, "label">[]): readonly string[] {
  let place = "";
  return commands.map(({ label }) => {
    if (label !== "") place = /^(?:model\.)?(?:layers|mtp)\.\d+/.exec(label)?.[0] ?? label;
    return place;
  });
}
