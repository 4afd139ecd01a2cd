/** Some steps of a run on one rank or on many in this process, and all that they leave: for tests of equal bits. */
import { presetConfig } from "../../src/model/index.ts";
import { everyRank, inProcess, type Layout, worldSize } from "../../src/parallel/index.ts";
import { NativeBackend, type Parameter, QueueDevice, type Tensor } from "../../src/tensor/index.ts";
import type { TrainConfig } from "../../src/train/config.ts";
import { defaultTrainConfig } from "../../src/train/configSchema.ts";
import { type Team, teamFor } from "../../src/train/dataParallel.ts";
import { openSession } from "../../src/train/openSession.ts";
import type { Session } from "../../src/train/rankSession.ts";
import { scheduleAt } from "../../src/train/schedule.ts";
import type { StepRecord } from "../../src/train/stepRecord.ts";
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

/** As `sharedConfig` of micro, with other numbers of layers and MTP modules. */
export function pipelineConfig(
  precision: TrainConfig["precision"],
  numHiddenLayers: number,
  numNextnPredictLayers: 0 | 1,
): TrainConfig {
  const model = { ...presetConfig("micro"), numHiddenLayers, numNextnPredictLayers };
  return sharedConfig("micro", precision, { model });
}

async function trainRank(
  device: QueueDevice,
  config: TrainConfig,
  steps: number,
  team: Team | null,
): Promise<Trained> {
  const session = openSession(device, config, { padId: PAD_ID, eosId: EOS_ID }, team);
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

/**
 * What this rank has of the state: of moments and averages, with ZeRO-1, those that it owns; the routed experts one by
 * one, because ranks may share them.
 */
async function stateOf({ heldFactories, optimizer }: Session): Promise<Map<string, string>> {
  const state = new Map<string, string>();
  const note = async (name: string, parameter: Parameter, tensor: Tensor): Promise<void> => {
    const factory = heldFactories.find(({ parameters }) => parameters.includes(parameter))!;
    const held = factory.expertsOf(parameter);
    if (held === null) {
      state.set(name, await hashOf(tensor));
      return;
    }
    for (let e = 0; e < held.count; e++)
      state.set(`${name}, expert ${held.first + e}`, await hashOf(tensor.rows(e, e + 1)));
  };
  for (const parameter of heldFactories.flatMap(({ parameters }) => parameters)) {
    const { path, master, panels } = parameter;
    await note(path, parameter, master);
    if (panels !== null) await note(`${path} packed`, parameter, panels);
  }
  for (const { path, value } of heldFactories.flatMap(({ buffers }) => buffers))
    state.set(path, await hashOf(value));
  for (const [i, parameter] of optimizer.parameters.entries()) {
    const { m, v } = optimizer.moments[i]!;
    const average = optimizer.averages[i];
    await note(`m ${parameter.path}`, parameter, m);
    if (v !== null) await note(`v ${parameter.path}`, parameter, v);
    if (average !== undefined) await note(`average ${parameter.path}`, parameter, average);
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
  cut: Partial<Layout>,
  ranksPerNode: number | null = null,
): Promise<readonly Trained[]> {
  const layout: Layout = { dp: 1, ep: 1, pp: 1, zero1: false, schedule: "dualpipe", ...cut };
  const communicators = inProcess(worldSize(layout), { backend: "native", limitBytes: BYTES, threads: 2 });
  try {
    return await everyRank(communicators, (communicator) =>
      trainRank(communicator.device, config, steps, teamFor(communicator, layout, ranksPerNode)),
    );
  } finally {
    await Promise.all(communicators.map(({ device }) => device.dispose()));
  }
}

/** The gradients of a run's first step on one process, by path. */
export async function firstGradients(config: TrainConfig): Promise<ReadonlyMap<string, Float64Array>> {
  const device = new QueueDevice(new NativeBackend({ threads: 2, reserveBytes: BYTES }), BYTES);
  try {
    const session = openSession(device, config, { padId: PAD_ID, eosId: EOS_ID });
    session.initialize();
    const scheduled = scheduleAt(config, { step: 0, share: 0 });
    await session.runner.compute(randomRows(config.batchRows, config, 0), scheduled);
    const grads = new Map<string, Float64Array>();
    for (const { path, grad } of session.factory.parameters)
      grads.set(path, Float64Array.from(await grad!.read()));
    return grads;
  } finally {
    await device.dispose();
  }
}
