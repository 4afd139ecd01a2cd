/** Training steps of a preset on random tokens: tokens a second and the share of the machine's peak. */

import type { OpenDevice } from "../api/index.ts";
import { trainingFlopsPerToken } from "../model/index.ts";
import { defaultTrainConfig, scheduleAt, type TrainConfig, TrainSession } from "../train/index.ts";
import type { BenchFlags, BenchRow } from "./benchRow.ts";

/** A model in training that takes one timed step at a time. */
export class TimedTraining {
  readonly config: TrainConfig;
  readonly #opened: OpenDevice;
  readonly #session: TrainSession;
  #step = 0;

  constructor(opened: OpenDevice, { preset, precision }: Pick<BenchFlags, "preset" | "precision">) {
    this.#opened = opened;
    this.config = { ...defaultTrainConfig(preset, 1000), precision };
    this.#session = new TrainSession(opened.device, this.config, { padId: 0, eosId: 0 });
    this.#session.initialize();
  }

  get tokensPerStep(): number {
    return this.config.batchRows * this.config.rowLength;
  }

  /** Seconds of one step, update included, from enqueueing to the last kernel. */
  async step(): Promise<number> {
    const { batchRows: count, rowLength, model } = this.config;
    const seed = this.#step * 7919;
    const tokens = Int32Array.from(
      { length: count * (rowLength + 1) },
      (_, i) => Math.imul(i + seed, 2654435761) % model.vocabSize,
    ).map(Math.abs);
    const scheduled = scheduleAt(this.config, { step: this.#step++, share: 0 });
    const started = performance.now();
    await this.#session.runner.compute({ tokens, count, rowLength }, scheduled);
    this.#session.runner.commit(scheduled);
    await this.#opened.device.drain();
    return (performance.now() - started) / 1000;
  }
}

const ROUNDS = 10;

export async function benchStep(opened: OpenDevice, flags: BenchFlags): Promise<readonly BenchRow[]> {
  const training = new TimedTraining(opened, flags);
  await training.step();
  let best = Number.POSITIVE_INFINITY;
  let peak = 0;
  for (let round = 0; round < ROUNDS; round++) {
    best = Math.min(best, await training.step());
    peak = Math.max(peak, (await opened.native?.peak(flags.precision, 0.05)) ?? 0);
  }
  const { total } = trainingFlopsPerToken(training.config.model, training.config.rowLength);
  const tokensPerSecond = training.tokensPerStep / best;
  return [
    {
      name: `training step of ${flags.preset}`,
      threads: opened.threads,
      precision: flags.precision,
      seconds: best,
      tokensPerSecond,
      gflops: (tokensPerSecond * total) / 1e9,
      peak: peak / 1e9,
      share: (tokensPerSecond * total) / peak,
    },
  ];
}
