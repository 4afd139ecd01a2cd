/**
 * `minke bench step --trace FILE`: the built-in profiler. Where the best of some traced steps spent its time, op by
 * op, and all of them as a Chrome trace.
 */
import { writeFile } from "node:fs/promises";
import { totalmem } from "node:os";
import type { OpenDevice } from "../../api/index.ts";
import { QueueDevice, TracedBackend, type TracedCommand } from "../../tensor/index.ts";
import { chromeTrace, type Slice } from "./chromeTrace.ts";
import { profileStep } from "./opTable.ts";
import type { BenchFlags, BenchRow } from "./row.ts";
import { javascriptShare } from "./step.ts";
import { type TimedStep, TimedTraining } from "./workload.ts";

const WARM_UP = 2;
/** Traced steps: enough that one is undisturbed, few enough that a browser opens the file at once. */
const STEPS = 5;

interface TracedSteps {
  readonly steps: readonly (readonly TracedCommand[])[];
  readonly javascript: readonly Slice[];
  readonly javascriptShare: number | null;
  readonly peak: number;
}

export async function* benchTrace(
  opened: OpenDevice,
  flags: BenchFlags,
  file: string,
): AsyncGenerator<BenchRow> {
  const { steps, javascript, javascriptShare: share, peak } = await traceSteps(opened, flags);
  await writeFile(file, JSON.stringify(chromeTrace(steps.flat(), javascript)));
  const profiles = steps.map((commands) => profileStep(commands, peak));
  const best = profiles.toSorted((a, b) => a.seconds - b.seconds)[0]!;
  const { preset, precision } = flags;
  for (const { op, seconds, stepShare, calls, ...rates } of best.ops) {
    yield {
      bench: "trace",
      name: op,
      preset,
      precision,
      milliseconds: seconds * 1000,
      stepShare,
      calls,
      ...rates,
    };
  }
  yield {
    bench: "trace",
    name: "(no command ran)",
    preset,
    precision,
    milliseconds: best.idleSeconds * 1000,
    stepShare: best.idleSeconds / best.seconds,
  };
  yield {
    bench: "trace",
    name: `traced step of ${preset}`,
    preset,
    precision,
    milliseconds: best.seconds * 1000,
    stepShare: 1,
    peakGflops: peak / 1e9,
    javascriptShare: share,
    trace: file,
  };
}

async function traceSteps(opened: OpenDevice, flags: BenchFlags): Promise<TracedSteps> {
  const traced = new TracedBackend(opened.native!);
  // A device of its own over the same queue: the other one holds no tensors.
  const device = new QueueDevice(traced, totalmem());
  const training = new TimedTraining({ device }, flags);
  for (let i = 0; i < WARM_UP; i++) await training.step();
  traced.start();
  const started = performance.now();
  const taken: TimedStep[] = [];
  const steps: (readonly TracedCommand[])[] = [];
  let peak = 0;
  for (let i = 0; i < STEPS; i++) {
    taken.push(await training.step());
    steps.push(traced.take());
    peak = Math.max(peak, await opened.native!.peak(flags.precision, 0.05));
  }
  traced.stop();
  training.dispose();
  const javascript = taken.flatMap(({ at }) => javascriptSlices(at, started));
  return { steps, javascript, javascriptShare: javascriptShare(taken), peak };
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
