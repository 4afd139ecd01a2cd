/** Some steps of a run on one rank or on many in this process, and all that they leave: for tests of equal bits. */
import { type Communicator, everyRank, inProcess } from "../../src/parallel/index.ts";
import { NativeBackend, QueueDevice } from "../../src/tensor/index.ts";
import type { TrainConfig } from "../../src/train/config.ts";
import { defaultTrainConfig } from "../../src/train/configSchema.ts";
import { scheduleAt } from "../../src/train/schedule.ts";
import { TrainSession } from "../../src/train/session.ts";
import type { StepRecord } from "../../src/train/step.ts";
import { hashOf } from "./tinyModel.ts";
import { EOS_ID, PAD_ID, randomRows } from "./tinyTraining.ts";

const BYTES = 2 ** 31;

export interface Trained {
  readonly records: readonly StepRecord[];
  /** Weights, router biases, moments and averages, by name, as hashes. */
  readonly state: ReadonlyMap<string, string>;
}

/** 32 rows a step, a row a micro-batch, 8 gradient shards: what every legal layout must compute alike. */
export function sharedConfig(
  preset: "unit" | "micro",
  precision: TrainConfig["precision"],
  changes: Partial<TrainConfig> = {},
): TrainConfig {
  const base = defaultTrainConfig(preset, 50, undefined, precision);
  return {
    ...base,
    schedule: { ...base.schedule, rampStart: 1 },
    rowLength: 16,
    batchRows: 32,
    microBatchRows: 1,
    gradientShards: 8,
    optimizer: { ...base.optimizer, emaDecay: 0.9 },
    ...changes,
  };
}

async function trainRank(
  device: QueueDevice,
  config: TrainConfig,
  steps: number,
  team: { readonly communicator: Communicator; readonly zero1: boolean } | null,
): Promise<Trained> {
  const session = new TrainSession(device, config, { padId: PAD_ID, eosId: EOS_ID }, team);
  session.initialize();
  const standing = device.arena.liveBytes;
  const records: StepRecord[] = [];
  for (let step = 0; step < steps; step++) {
    const scheduled = scheduleAt(config, { step, share: step / config.steps });
    records.push(await session.runner.compute(randomRows(config.batchRows, config, step), scheduled));
    // A step that is skipped leaves no trace on any rank.
    if (step !== 3) session.runner.commit(scheduled);
    if (device.arena.liveBytes !== standing) throw new Error(`step ${step} keeps memory`);
  }
  const state = await stateOf(session);
  session.dispose();
  return { records, state };
}

/** What this rank has of the state: of moments and averages, with ZeRO-1, those that it owns. */
async function stateOf({ factory, optimizer }: TrainSession): Promise<Map<string, string>> {
  const state = new Map<string, string>();
  for (const { path, master, panels } of factory.parameters) {
    state.set(path, await hashOf(master));
    if (panels !== null) state.set(`${path} packed`, await hashOf(panels));
  }
  for (const { path, value } of factory.buffers) state.set(path, await hashOf(value));
  for (const [i, { path }] of optimizer.parameters.entries()) {
    const { m, v } = optimizer.moments[i]!;
    state.set(`m ${path}`, await hashOf(m));
    if (v !== null) state.set(`v ${path}`, await hashOf(v));
    const average = optimizer.averages[i];
    if (average !== undefined) state.set(`average ${path}`, await hashOf(average));
  }
  return state;
}

export async function trainAlone(config: TrainConfig, steps: number): Promise<Trained> {
  const device = new QueueDevice(new NativeBackend({ threads: 2, reserveBytes: BYTES }), BYTES);
  try {
    return await trainRank(device, config, steps, null);
  } finally {
    await device.dispose();
  }
}

/** What each rank ends with, in their order. */
export async function trainOnRanks(
  config: TrainConfig,
  steps: number,
  { ranks, zero1 }: { readonly ranks: number; readonly zero1: boolean },
): Promise<readonly Trained[]> {
  const communicators = inProcess(ranks, { backend: "native", limitBytes: BYTES, threads: 2 });
  try {
    return await everyRank(communicators, (communicator) =>
      trainRank(communicator.device, config, steps, { communicator, zero1 }),
    );
  } finally {
    await Promise.all(communicators.map(({ device }) => device.dispose()));
  }
}
