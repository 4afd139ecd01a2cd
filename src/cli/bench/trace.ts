/**
 * `minke bench step --trace FILE`: the built-in profiler. Where the fastest of some traced steps spent its time, op by
 * op, and the same step as a Chrome trace.
 */
import { existsSync } from "node:fs";
import { open, rm, writeFile } from "node:fs/promises";
import { totalmem } from "node:os";
import type { OpenDevice } from "../../api/index.ts";
import { explained } from "../../run/index.ts";
import { QueueDevice, TracedBackend, type TracedCommand } from "../../tensor/index.ts";
import { chromeTrace, type Slice } from "./chromeTrace.ts";
import { profileStep } from "./opTable.ts";
import { type BenchRow, peakKind, type StepFlags, timing } from "./row.ts";
import { javascriptShare } from "./step.ts";
import { type TimedStep, TimedTraining } from "./workload.ts";

const WARM_UP = 2;
/** Fewest steps that are traced: one of so many is undisturbed, even where --rounds asks for less. */
const LEAST_STEPS = 5;

const DOING = "write the trace";

/** Minutes of measuring must not end at a file that cannot be written. An older trace stays until there is a new one. */
export function requireWritable(file: string): Promise<void> {
  return explained(file, DOING, async () => {
    const isNew = !existsSync(file);
    await (await open(file, "a")).close();
    if (isNew) await rm(file);
  });
}

interface TracedStep extends TimedStep {
  readonly commands: readonly TracedCommand[];
  /** What JavaScript did, on the trace's clock. */
  readonly javascript: readonly Slice[];
}

interface TracedSteps {
  readonly steps: readonly TracedStep[];
  /** Of the registers, the best of all steps' probes. */
  readonly peak: number;
}

export async function* benchTrace(
  opened: OpenDevice,
  flags: StepFlags,
  file: string,
): AsyncGenerator<BenchRow> {
  const { steps, peak } = await traceSteps(opened, flags);
  const profiles = steps.map(({ commands }) => profileStep(commands, peak));
  const { best: seconds, median } = timing(profiles.map((profile) => profile.seconds));
  const fastest = profiles.findIndex((profile) => profile.seconds === seconds);
  const { ops, idleSeconds } = profiles[fastest]!;
  const { commands, javascript } = steps[fastest]!;
  const trace = JSON.stringify(chromeTrace(commands, javascript));
  await explained(file, DOING, () => writeFile(file, trace));
  const row = (name: string, spent: number, figures: Readonly<Record<string, number | string | null>>) => ({
    bench: "trace" as const,
    name,
    preset: flags.preset,
    precision: flags.precision,
    milliseconds: spent * 1000,
    stepShare: spent / seconds,
    ...figures,
  });
  for (const { op, seconds: spent, stepShare: _, ...figures } of ops) yield row(op, spent, figures);
  yield row("between ops", idleSeconds, { calls: null });
  yield {
    ...row(`fastest of ${steps.length} traced steps`, seconds, {}),
    medianMilliseconds: median * 1000,
    peakGflops: peak / 1e9,
    javascriptShare: javascriptShare(steps),
    trace: file,
  };
}

async function traceSteps(opened: OpenDevice, flags: StepFlags): Promise<TracedSteps> {
  const traced = new TracedBackend(opened.native!);
  // A device of its own over the same queue: the other one holds no tensors.
  const device = new QueueDevice(traced, totalmem());
  const training = new TimedTraining({ device }, flags);
  for (let i = 0; i < WARM_UP; i++) await training.step();
  traced.start();
  const started = performance.now();
  const steps: TracedStep[] = [];
  let peak = 0;
  for (let i = 0; i < Math.max(LEAST_STEPS, flags.rounds); i++) {
    const taken = await training.step();
    steps.push({ ...taken, commands: traced.take(), javascript: javascriptSlices(taken.at, started) });
    peak = Math.max(peak, await opened.native!.peak(peakKind(flags.precision), 0.05));
  }
  traced.stop();
  training.dispose();
  return { steps, peak };
}

function javascriptSlices(at: TimedStep["at"], started: number): readonly Slice[] {
  const slice = (name: string, begin: number, end: number): Slice => ({
    name,
    begin: (begin - started) * 1e6,
    end: (end - started) * 1e6,
  });
  return [
    slice("enqueue forward and backward", at.begun, at.enqueued),
    slice("enqueue update", at.recorded, at.committed),
  ];
}
