import { createHash } from "node:crypto";
import { describe, expect, test } from "vitest";
import {
  makeSession,
  midway,
  PAD_ID,
  randomRows,
  tinyTrainConfig,
} from "../../../test/support/tinyTraining.ts";
import { makeRopeTable, ParameterFactory, precisions, Stage } from "../../model/index.ts";
import {
  type Communicator,
  everyRank,
  inProcess,
  type PipelinePlan,
  plan1F1B,
  planDualPipe,
  planDualPipeV,
  planZeroBubble,
  splitStages,
} from "../../parallel/index.ts";
import { fill, NativeBackend, QueueDevice } from "../../tensor/index.ts";
import { makeBatch, planBatch, type Rows, writeBatch } from "../batch.ts";
import type { TrainConfig } from "../config.ts";
import { lossScales } from "../losses.ts";
import { type PairForm, PipelineExecutor } from "./executor.ts";
import { StageModel } from "./stageModel.ts";

type Gradients = Map<string, Float32Array>;

/** Micro-batches of one row. */
const MICRO_BATCHES = 8;

function config(depth: number, layers: number, gradientShards: number): TrainConfig {
  return tinyTrainConfig(
    { batchRows: MICRO_BATCHES, microBatchRows: 1, gradientShards },
    { numHiddenLayers: layers, numNextnPredictLayers: depth },
  );
}

async function alone(settings: TrainConfig): Promise<Gradients> {
  const device = new QueueDevice(new NativeBackend(), 2 ** 28);
  const session = makeSession(settings, device);
  await session.runner.compute(randomRows(settings.batchRows, settings, 3), midway(settings));
  const grads = await gradientsOf([session.factory]);
  await device.dispose();
  return grads;
}

async function gradientsOf(factories: readonly ParameterFactory[]): Promise<Gradients> {
  const grads: Gradients = new Map();
  for (const { parameters, tied } of factories) {
    for (const { path, grad } of parameters) grads.set(path, Float32Array.from(await grad!.read()));
    for (const { owner, alias } of tied) {
      const both = Float32Array.from(await alias.grad!.read());
      const own = grads.get(owner.path);
      grads.set(owner.path, own === undefined ? both : own.map((value, i) => value + both[i]!));
    }
  }
  return grads;
}

/** One rank's step: the gradients of each of its modules. */
async function rankStep(
  communicator: Communicator,
  plan: PipelinePlan,
  settings: TrainConfig,
  rows: Rows,
  pairs: PairForm,
): Promise<readonly Gradients[]> {
  const { device, rank } = communicator;
  const precision = precisions.f32;
  const ranges = splitStages(settings.model, plan.stages);
  const factories = plan.stagesOf[rank]!.map(
    () => new ParameterFactory(device, settings.model, { precision, isTrained: true }),
  );
  const held = plan.stagesOf[rank]!;
  const stages = new Map<number, Stage>();
  // The first stage's before the last's, which shares its embedding.
  for (const module of held.map((_, i) => i).sort((a, b) => held[a]! - held[b]!)) {
    const embedding = stages.get(held.indexOf(0))?.embedTokens ?? null;
    stages.set(module, new Stage(settings.model, factories[module]!, ranges[held[module]!]!, embedding));
  }
  for (const factory of factories) {
    factory.initialize(settings.seed);
    for (const { grad } of factory.parameters) fill(grad!, 0);
    for (const { alias } of factory.tied) fill(alias.grad!, 0);
  }
  const mtpDepth = settings.model.numNextnPredictLayers;
  const plans = Array.from({ length: MICRO_BATCHES }, (_, i) => {
    const width = rows.rowLength + 1;
    const tokens = rows.tokens.subarray(i * width, (i + 1) * width);
    return planBatch(
      { tokens, count: 1, rowLength: rows.rowLength },
      { mtpDepth, padId: PAD_ID, documentEnd: null },
    );
  });
  const count = (of: (plan: (typeof plans)[number]) => number): number =>
    plans.reduce((sum, each) => sum + of(each), 0);
  const sequences = count((each) => each.sequences);
  const batches = plans.map((each) => {
    const tensors = makeBatch(device, {
      rows: 1,
      rowLength: rows.rowLength,
      mtpDepth,
      masksDocuments: false,
    });
    writeBatch(tensors, each);
    return { tensors, balanceAlpha: (settings.balance.alpha * each.sequences) / sequences };
  });
  const { mtpWeight } = midway(settings);
  const scales = lossScales({
    mainCount: count((each) => each.valid),
    mtpCounts: Array.from({ length: mtpDepth }, (_, k) => count((each) => each.mtp[k]!.valid)),
    mtpWeight,
  });
  const rope = makeRopeTable(device, settings.model, settings.model.maxPositionEmbeddings, "f32");
  const before = device.arena.liveBytes;
  const model = new StageModel({
    device,
    stages: held.map((_, module) => stages.get(module)!),
    batches,
    rope,
    precision,
    recomputes: false,
    scales,
    dispatch: null,
    record: () => undefined,
    finished: () => undefined,
  });
  new PipelineExecutor(plan, communicator, model, { pairs }).enqueue();
  expect(device.arena.liveBytes).toBe(before);
  return Promise.all(factories.map((factory) => gradientsOf([factory])));
}

async function pipeline(
  plan: PipelinePlan,
  settings: TrainConfig,
  pairs: PairForm = "interleaved",
): Promise<Gradients> {
  const rows = randomRows(settings.batchRows, settings, 3);
  const ranks = inProcess(plan.ranks, { backend: "native", limitBytes: 2 ** 28, timeoutSeconds: 20 });
  const results = await everyRank(ranks, (rank) => rankStep(rank, plan, settings, rows, pairs));
  for (const { device } of ranks) await device.dispose();
  const sums: Gradients = new Map();
  // Direction 0, which is module 0 under DualPipe, has the earlier half of the rows.
  for (const module of [0, 1]) {
    for (const modules of results) {
      for (const [path, grad] of modules[module] ?? []) {
        const sum = sums.get(path);
        sums.set(path, sum === undefined ? grad : sum.map((value, i) => value + grad[i]!));
      }
    }
  }
  return sums;
}

function hash(values: Float32Array): string {
  return createHash("sha256").update(new Uint8Array(values.buffer)).digest("hex");
}

function expectEqual(found: Gradients, wanted: Gradients): void {
  expect([...found.keys()].sort()).toEqual([...wanted.keys()].sort());
  for (const [path, grad] of wanted) expect(hash(found.get(path)!), path).toBe(hash(grad));
}

describe("a step cut into a pipeline", () => {
  test.each([
    ["1f1b", 2],
    ["1f1b", 4],
    ["zb", 2],
    ["zb", 4],
  ] as const)("gives the gradients of one process: %s, %i ranks", async (schedule, ranks) => {
    const settings = config(0, 4, 1);
    const plan = (schedule === "1f1b" ? plan1F1B : planZeroBubble)({ ranks, microBatches: MICRO_BATCHES });
    expectEqual(await pipeline(plan, settings), await alone(settings));
  });

  test.each([2, 4])("fed from both ends gives those of two blocks: DualPipe, %i ranks", async (ranks) => {
    const settings = config(0, 4, 2);
    const plan = planDualPipe({ ranks, microBatches: MICRO_BATCHES });
    expectEqual(await pipeline(plan, settings), await alone(settings));
  });

  test("whose pairs are units gives the same: the plain twin", async () => {
    const settings = config(0, 4, 2);
    const plan = planDualPipe({ ranks: 4, microBatches: MICRO_BATCHES });
    expectEqual(await pipeline(plan, settings, "unit"), await pipeline(plan, settings));
  });

  test.each([2, 4])("folded gives those of one process, MTP's too: DualPipeV, %i ranks", async (ranks) => {
    const settings = config(1, 8, 1);
    const plan = planDualPipeV({ ranks, microBatches: MICRO_BATCHES });
    expectEqual(await pipeline(plan, settings), await alone(settings));
  });
});
