import { describe, expect, onTestFinished, test } from "vitest";
import { integers } from "../../test/support/random.ts";
import { hashOf, makeTinyModel, type TinyModel, tinyConfig } from "../../test/support/tinyModel.ts";
import { QueueDevice, ReferenceBackend, type Tensor } from "../tensor/index.ts";
import { type MtpOutput, ParameterFactory, type Pass, Stage, type Transformer } from "./index.ts";

const LAYERS = 4;
const SEED = 3;
const config = tinyConfig({ numHiddenLayers: LAYERS });
const idsOf = (seed: number) => integers(10, config.vocabSize, seed);

function openDevice(): QueueDevice {
  const device = new QueueDevice(new ReferenceBackend(), 2 ** 28);
  onTestFinished(() => device.dispose());
  return device;
}

/** Two sequences, of 6 and 4 tokens. */
function passOf({ device, rope, precision }: TinyModel): Pass {
  return {
    positions: device.from([0, 1, 2, 3, 4, 5, 0, 1, 2, 3], [10], "i32"),
    seqOffsets: device.from([0, 6, 10], [3], "i32"),
    rope,
    precision,
    cache: null,
    balanceAlpha: 0.01,
    dispatch: null,
  };
}

/** Stages that end before these layers, each with a factory of its own and the whole model's first values. */
function makeStages({ device, precision }: TinyModel, ends: readonly number[]): readonly Stage[] {
  const stages: Stage[] = [];
  for (const [i, to] of ends.entries()) {
    const factory = new ParameterFactory(device, config, { precision, isTrained: false });
    stages.push(new Stage(config, factory, { from: ends[i - 1] ?? 0, to }, stages[0]?.embedTokens ?? null));
    factory.initialize(SEED);
    for (const { value } of factory.buffers)
      value.write(Array.from({ length: value.size }, (_, e) => 0.02 * (e % 3)));
  }
  return stages;
}

interface Output {
  readonly normed: Tensor;
  readonly hidden: Tensor;
  readonly balance: readonly Tensor[];
  readonly mtp: readonly MtpOutput[];
}

function throughWhole(model: Transformer, ids: Tensor, next: Tensor, pass: Pass): Output {
  const { normed, hidden, reports } = model.forward(ids, pass);
  const mtp = model.mtp.map((module) => module.forward(hidden, next, pass));
  return { normed, hidden, balance: reports.map(({ balanceLoss }) => balanceLoss!), mtp };
}

function throughStages(stages: readonly Stage[], ids: Tensor, next: Tensor, pass: Pass): Output {
  const balance: Tensor[] = [];
  let stream = stages[0]!.embed(ids, pass)!;
  for (const stage of stages) {
    const output = stage.forward(stream, pass);
    stream = output.stream;
    balance.push(...output.reports.map(({ balanceLoss }) => balanceLoss!));
  }
  const last = stages.at(-1)!;
  const { normed, hidden } = last.finish(stream, last.head!, pass);
  const mtp = last.head!.mtp.map((module) => module.forward(hidden, next, pass));
  return { normed, hidden, balance, mtp };
}

function hashesOf({ normed, hidden, balance, mtp }: Output): Promise<string[]> {
  return Promise.all([normed, hidden, ...balance, ...mtp.map((output) => output.normed)].map(hashOf));
}

describe("a chain of stages", () => {
  test.each([
    ["f32", [4]],
    ["f32", [1, 2, 4]],
    ["f32", [1, 2, 3, 4]],
    ["bf16", [2, 4]],
    ["bf16", [1, 2, 3, 4]],
  ] as const)("has the whole model's output bit for bit: %s, cut at %j", async (precision, ends) => {
    const whole = makeTinyModel(openDevice(), config, { precision, seed: SEED });
    const { device, model } = whole;
    const stages = makeStages(whole, ends);
    using _scope = device.scope();
    const pass = passOf(whole);
    const [ids, next] = [1, 2].map((seed) => device.from(idsOf(seed), [10], "i32"));
    const wanted = await hashesOf(throughWhole(model, ids!, next!, pass));
    // What the head and MTP read, the balance losses of three MoE layers, what MTP's head reads.
    expect(new Set(wanted).size).toBe(6);
    expect(await hashesOf(throughStages(stages, ids!, next!, pass))).toEqual(wanted);
  });

  test("has the embedding at its first stage alone, and the head at its last alone", () => {
    const stages = makeStages(makeTinyModel(openDevice(), config), [1, 3, 4]);
    expect(stages.map(({ embedTokens }) => embedTokens !== null)).toEqual([true, false, false]);
    expect(stages.map(({ head }) => head !== null)).toEqual([false, false, true]);
    expect(stages.map(({ layers }) => layers.length)).toEqual([1, 2, 1]);
  });
});

test("a last stage that is held without the first has no MTP modules", () => {
  const { device, precision } = makeTinyModel(openDevice(), config);
  const factory = new ParameterFactory(device, config, { precision, isTrained: false });
  const { head } = new Stage(config, factory, { from: 2, to: LAYERS });
  expect(config.numNextnPredictLayers).toBe(1);
  expect(head!.mtp).toHaveLength(0);
});
