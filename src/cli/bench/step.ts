/** Training steps of a model on random tokens: tokens a second and the share of the machine's peak. */
import type { OpenDevice } from "../../api/index.ts";
import { type BenchRow, peakKind, type StepFlags, timing } from "./row.ts";
import { peakRssBytes, type TimedStep, TimedTraining } from "./workload.ts";

export async function* benchStep(opened: OpenDevice, flags: StepFlags): AsyncGenerator<BenchRow> {
  const training = new TimedTraining(opened, flags);
  await training.step();
  const steps: TimedStep[] = [];
  let peak = 0;
  for (let round = 0; round < flags.rounds; round++) {
    steps.push(await training.step());
    peak = Math.max(peak, await opened.native!.peak(peakKind(flags.precision), 0.05));
  }
  const { best, median } = timing(steps.map(({ seconds }) => seconds));
  yield {
    bench: "step",
    name: `training step of ${flags.preset}, ${flags.precision}`,
    preset: flags.preset,
    threads: opened.threads,
    precision: flags.precision,
    rounds: flags.rounds,
    seconds: best,
    medianSeconds: median,
    tokensPerSecond: training.tokensPerStep / best,
    medianTokensPerSecond: training.tokensPerStep / median,
    gflops: training.flopsPerStep / best / 1e9,
    peakGflops: peak / 1e9,
    share: training.flopsPerStep / best / peak,
    javascriptShare: javascriptShare(steps),
    peakRssBytes: peakRssBytes(),
  };
  training.dispose();
}

/** Processor time of JavaScript's thread over the time of the steps; null where Node cannot tell. */
export function javascriptShare(steps: readonly TimedStep[]): number | null {
  let [busy, all] = [0, 0];
  for (const { javascriptSeconds, seconds } of steps) {
    if (javascriptSeconds === null) return null;
    busy += javascriptSeconds;
    all += seconds;
  }
  return all === 0 ? null : busy / all;
}
