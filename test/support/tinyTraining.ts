/** A training session of a tiny model, and rows for it: whole steps in plain TypeScript in milliseconds. */
import type { ModelConfig } from "../../src/model/index.ts";
import { QueueDevice, ReferenceBackend } from "../../src/tensor/index.ts";
import type { Rows } from "../../src/train/batch.ts";
import type { TrainConfig } from "../../src/train/config.ts";
import { defaultTrainConfig } from "../../src/train/configSchema.ts";
import { type ScheduledValues, scheduleAt } from "../../src/train/schedule.ts";
import { TrainSession } from "../../src/train/session.ts";
import { integers, makeRandom } from "./random.ts";
import { hashOf, snapshot, tinyConfig } from "./tinyModel.ts";

export const PAD_ID = 2;
export const EOS_ID = 1;

export function tinyTrainConfig(
  changes: Partial<TrainConfig> = {},
  model: Partial<ModelConfig> = {},
): TrainConfig {
  const preset = defaultTrainConfig("unit", 20, tinyConfig(model));
  return {
    ...preset,
    schedule: { ...preset.schedule, rampStart: 1 },
    precision: "f32",
    rowLength: 8,
    batchRows: 4,
    microBatchRows: 2,
    ...changes,
  };
}

export function makeSession(
  config: TrainConfig = tinyTrainConfig(),
  device: QueueDevice = new QueueDevice(new ReferenceBackend(), 2 ** 31),
): TrainSession {
  const session = new TrainSession(device, config, { padId: PAD_ID, eosId: EOS_ID });
  session.initialize();
  return session;
}

/** Rows of random tokens, some of which end in padding; the first is whole. */
export function randomRows(count: number, config: TrainConfig, seed: number): Rows {
  const { rowLength } = config;
  const width = rowLength + 1;
  const tokens = integers(count * width, config.model.vocabSize, seed);
  const random = makeRandom(seed + 1);
  for (let r = 1; r < count; r++) {
    const length = 3 + Math.floor(random() * (width - 2));
    tokens.fill(-1, r * width + Math.min(length, width), (r + 1) * width);
  }
  return { tokens, count, rowLength };
}

/** The scheduled values in the middle of a run: full learning rate, gamma and MTP weight above 0. */
export function midway(config: TrainConfig): ScheduledValues {
  return scheduleAt(config, { step: config.schedule.warmupSteps, share: 0.1 });
}

/** All that a step may change, bit for bit: weights, router biases, moments, averages. */
export async function trainingState({ factory, optimizer }: TrainSession): Promise<Map<string, string>> {
  const state = await snapshot(factory);
  for (const [i, { m, v }] of optimizer.moments.entries()) {
    state.set(`m ${i}`, await hashOf(m));
    if (v !== null) state.set(`v ${i}`, await hashOf(v));
  }
  for (const [i, average] of optimizer.averages.entries()) state.set(`average ${i}`, await hashOf(average));
  return state;
}
