import { describe, expect, test } from "vitest";
import { snapshot } from "../../test/support/tinyModel.ts";
import {
  EOS_ID,
  makeSession,
  midway,
  PAD_ID,
  randomRows,
  tinyTrainConfig,
  trainingState,
} from "../../test/support/tinyTraining.ts";
import { distance } from "../../test/support/tolerance.ts";
import { fill } from "../tensor/index.ts";
import type { TrainConfig } from "./config.ts";
import { evaluate } from "./eval/evaluate.ts";
import { TrainSession } from "./session.ts";
import type { StepRecord } from "./stepRecord.ts";

const noBalance = { gamma: 0, gammaUntil: 1, alpha: 0 };

async function gradients({ factory }: TrainSession): Promise<Map<string, Float64Array>> {
  const grads = new Map<string, Float64Array>();
  for (const { path, grad } of factory.parameters) grads.set(path, Float64Array.from(await grad!.read()));
  return grads;
}

interface Computed {
  readonly session: TrainSession;
  readonly record: StepRecord;
  readonly grads: Map<string, Float64Array>;
}

async function computed(
  changes: Partial<TrainConfig>,
  model: Parameters<typeof tinyTrainConfig>[1] = {},
): Promise<Computed> {
  const config = tinyTrainConfig(changes, model);
  const session = makeSession(config);
  const record = await session.runner.compute(randomRows(config.batchRows, config, 3), midway(config));
  return { session, record, grads: await gradients(session) };
}

function expectSameStep(one: Computed, two: Computed): void {
  for (const name of ["mainLoss", "balanceLoss", "loss", "gradNorm"] as const)
    expect(Math.abs(one.record[name] / two.record[name] - 1), name).toBeLessThan(1e-6);
  expect(one.record.targets).toBe(two.record.targets);
  expect(one.record.expertLoad).toEqual(two.record.expertLoad);
  expect(one.record.mtpAccuracy).toEqual(two.record.mtpAccuracy);
  for (const [path, grad] of one.grads)
    expect(distance(grad, two.grads.get(path)!).frobenius, path).toBeLessThan(1e-6);
}

describe("a step whose rows are cut into micro-batches", () => {
  test("is the same step: four of one row, two of two, one of four, though rows hold unequal numbers of tokens", async () => {
    const whole = await computed({ microBatchRows: 4 });
    expectSameStep(await computed({ microBatchRows: 1 }), whole);
    expectSameStep(await computed({ microBatchRows: 2 }), whole);
  });

  test("is the same step with its gradients summed by a tree of two or four blocks", async () => {
    const whole = await computed({ microBatchRows: 1 });
    expectSameStep(await computed({ microBatchRows: 1, gradientShards: 2 }), whole);
    expectSameStep(await computed({ microBatchRows: 1, gradientShards: 4 }), whole);
  });

  test("is the same step with two MTP modules, whose targets are fewer than the main model's", async () => {
    const model = { numNextnPredictLayers: 2 };
    const [one, four] = [
      await computed({ microBatchRows: 4 }, model),
      await computed({ microBatchRows: 1 }, model),
    ];
    expectSameStep(four, one);
    for (const k of [0, 1]) expect(four.record.mtpLosses[k]! / one.record.mtpLosses[k]!).toBeCloseTo(1, 6);
  });

  test("is the same step where documents are masked", async () => {
    const { data } = tinyTrainConfig();
    const masked = { data: { ...data, maskDocuments: true } };
    expectSameStep(
      await computed({ ...masked, microBatchRows: 1 }),
      await computed({ ...masked, microBatchRows: 4 }),
    );
  });

  test("has the same bits when it is computed again", async () => {
    const [one, two] = [await computed({ gradientShards: 2 }), await computed({ gradientShards: 2 })];
    expect(two.record).toEqual(one.record);
    expect(two.grads).toEqual(one.grads);
  });
});

describe("a step's record", () => {
  test("adds the losses up as the report does: main, lambda over the modules, balance", async () => {
    for (const numNextnPredictLayers of [0, 1, 3]) {
      const { record, session } = await computed({}, { numNextnPredictLayers });
      const { mtpWeight } = midway(session.config);
      expect(mtpWeight).toBe(0.3);
      const mtp = record.mtpLosses.reduce((sum, loss) => sum + loss, 0) / Math.max(1, numNextnPredictLayers);
      expect(record.mtpLosses).toHaveLength(numNextnPredictLayers);
      expect(record.loss).toBeCloseTo(record.mainLoss + 0.3 * mtp + record.balanceLoss, 12);
    }
  });

  test("adds the losses of its micro-batches in their order, in float64", async () => {
    const config = tinyTrainConfig({ microBatchRows: 1, balance: noBalance });
    const rows = randomRows(4, config, 3);
    const whole = await computed({ microBatchRows: 1, balance: noBalance });
    const width = config.rowLength + 1;
    let nats = 0;
    for (let i = 0; i < 4; i++) {
      const tokens = rows.tokens.subarray(i * width, (i + 1) * width);
      const { mainLoss, targets } = await makeSession(config).runner.compute(
        { tokens, count: 1, rowLength: config.rowLength },
        midway(config),
      );
      // What was read is an f32: the mean loses it by a rounding that this takes back.
      nats += Math.fround(mainLoss * targets);
    }
    expect(whole.record.mainLoss).toBe(nats / whole.record.targets);
  });

  test("begins near the entropy of knowing nothing", async () => {
    const { record, session } = await computed({});
    const nothing = Math.log(session.config.model.vocabSize);
    expect(Math.abs(record.mainLoss - nothing)).toBeLessThan(0.3);
    expect(Math.abs(record.mtpLosses[0]! - nothing)).toBeLessThan(0.3);
  });

  test("counts the targets: every token that has one before it in its row", async () => {
    const config = tinyTrainConfig();
    const rows = randomRows(4, config, 3);
    const { record } = await computed({});
    let targets = 0;
    for (let i = 0; i < rows.tokens.length; i++) if (i % 9 !== 0 && rows.tokens[i]! >= 0) targets++;
    expect(record.targets).toBe(targets);
  });

  test("loads every MoE layer, MTP's included, with each token times K", async () => {
    const { record, session } = await computed({}, { numNextnPredictLayers: 2 });
    const { batchRows, rowLength, model } = session.config;
    expect(record.expertLoad).toHaveLength(3);
    for (const load of record.expertLoad) {
      expect(load).toHaveLength(model.nRoutedExperts);
      expect(load.reduce((sum, count) => sum + count, 0)).toBe(
        batchRows * rowLength * model.numExpertsPerTok,
      );
    }
  });

  test("has the norm of all gradients, embedding and head with MTP's part in them", async () => {
    const { record, grads } = await computed({ balance: noBalance });
    let squares = 0;
    for (const grad of grads.values()) for (const value of grad) squares += value * value;
    expect(record.gradNorm / Math.sqrt(squares)).toBeCloseTo(1, 6);
    const without = await computed({ balance: noBalance, mtp: { weight: 0, finalWeight: 0, switchAt: 1 } });
    const head = "lmHead.weight";
    expect(distance(grads.get(head)!, without.grads.get(head)!).frobenius).toBeGreaterThan(1e-3);
    expect(new Set(without.grads.get("model.layers.2.ehProj.weight"))).toEqual(new Set([0]));
  });

  test.each([0, 1, 2])(
    "has in its gradients the slope of its loss: weights of main, MTP and balance as recorded, %d modules",
    async (numNextnPredictLayers) => {
      // Weights of their own for each part, so that none can hide behind another.
      const balance = { ...noBalance, alpha: 0.5 };
      const mtp = { weight: 0.9, finalWeight: 0, switchAt: 1 };
      const config = tinyTrainConfig({ balance, mtp }, { numNextnPredictLayers });
      const session = makeSession(config);
      const rows = randomRows(config.batchRows, config, 4);
      const record = await session.runner.compute(rows, midway(config));
      const grads = await gradients(session);
      const { parameters } = session.factory;
      const standing = await Promise.all(
        parameters.map(async ({ master }) => Float64Array.from(await master.read())),
      );
      const lossAt = async (along: number): Promise<number> => {
        for (const [p, parameter] of parameters.entries()) {
          const grad = grads.get(parameter.path)!;
          parameter.master.write(standing[p]!.map((w, i) => w + (along * grad[i]!) / record.gradNorm));
          parameter.repack();
        }
        const { loss, expertLoad } = await session.runner.compute(rows, midway(config));
        // So short a way that no token changes its experts: there the loss would jump.
        expect(expertLoad).toEqual(record.expertLoad);
        return loss;
      };
      // Along the gradient the loss rises by the gradient's norm for each unit of the way.
      const slope = ((await lossAt(0.001)) - (await lossAt(-0.001))) / 0.002;
      expect(Math.abs(slope / record.gradNorm - 1)).toBeLessThan(1e-3);
    },
  );

  test("has the hits of MTP that an evaluation of the same rows finds", async () => {
    const config = tinyTrainConfig();
    const session = makeSession(config);
    const rows = randomRows(4, config, 5);
    for (let i = 0; i < 12; i++) {
      await session.runner.compute(rows, midway(config));
      session.runner.commit(midway(config));
    }
    const { mtpAccuracy, mainLoss } = await session.runner.compute(rows, midway(config));
    const evaluation = await evaluate(session, { rows, bytesOf: () => 1 }, { maxRows: 4 });
    expect(mtpAccuracy[0]).toBeGreaterThan(0);
    expect(mtpAccuracy[0]).toBe(evaluation!.nextNextTokenAccuracy);
    expect(mainLoss).toBeCloseTo(evaluation!.loss, 5);
  });

  test("is not moved by the token that stands in for padding", async () => {
    const config = tinyTrainConfig({ balance: noBalance });
    const of = async (padId: number): Promise<unknown> => {
      const session = new TrainSession(makeSession(config).device, config, { padId, eosId: EOS_ID });
      session.initialize();
      const { mainLoss, mtpLosses, gradNorm } = await session.runner.compute(
        randomRows(4, config, 3),
        midway(config),
      );
      return { mainLoss, mtpLosses, gradNorm };
    };
    expect(await of(30)).toEqual(await of(PAD_ID));
  });
});

describe("a step that is taken", () => {
  test("moves every weight that has a gradient, and counts itself", async () => {
    const { session, grads } = await computed({});
    const before = await snapshot(session.factory);
    session.runner.commit(midway(session.config));
    const after = await snapshot(session.factory);
    expect(session.optimizer.updates).toBe(1);
    for (const [path, grad] of grads)
      if (grad.some((value) => value !== 0)) expect(after.get(path), path).not.toEqual(before.get(path));
  });

  test("moves each router bias by gamma, down where the load is above the mean and up below it", async () => {
    const { session, record } = await computed({});
    const scheduled = { ...midway(session.config), gamma: 0.25 };
    const before = await Promise.all(session.factory.buffers.map(({ value }) => value.read()));
    session.runner.commit(scheduled);
    for (const [l, { value }] of session.factory.buffers.entries()) {
      const load = Array.from(record.expertLoad[l]!);
      const mean = load.reduce((sum, count) => sum + count, 0) / load.length;
      const wanted = load.map((count, e) => before[l]![e]! + 0.25 * Math.sign(mean - count));
      expect(Array.from(await value.read())).toEqual(wanted);
    }
  });

  test("leaves the router biases where gamma is 0", async () => {
    const { session } = await computed({});
    const biases = (): Promise<Uint8Array[]> =>
      Promise.all(session.factory.buffers.map(({ value }) => value.readBytes()));
    const before = await biases();
    session.runner.commit({ ...midway(session.config), gamma: 0 });
    expect(await biases()).toEqual(before);
  });

  test("makes the loss on the same rows smaller, step after step", async () => {
    const config = tinyTrainConfig();
    const session = makeSession(config);
    const rows = randomRows(4, config, 5);
    const losses: number[] = [];
    for (let i = 0; i < 12; i++) {
      losses.push((await session.runner.compute(rows, midway(config))).loss);
      session.runner.commit(midway(config));
    }
    expect(losses.at(-1)!).toBeLessThan(losses[0]! - 1);
  });
});

describe("a step that is skipped", () => {
  test("leaves weights, moments, averages, biases and the optimizer's count as they were, to the bit", async () => {
    const { optimizer } = tinyTrainConfig();
    const config = tinyTrainConfig({ optimizer: { ...optimizer, emaDecay: 0.9 } });
    const session = makeSession(config);
    await session.runner.compute(randomRows(4, config, 1), midway(config));
    session.runner.commit(midway(config));
    const before = await trainingState(session);
    await session.runner.compute(randomRows(4, config, 2), midway(config));
    expect(await trainingState(session)).toEqual(before);
    expect(session.optimizer.updates).toBe(1);
  });

  test("leaves no trace in the next: its gradients and counts begin at zero", async () => {
    const config = tinyTrainConfig();
    const [skipping, plain] = [makeSession(config), makeSession(config)];
    await skipping.runner.compute(randomRows(4, config, 1), midway(config));
    const rows = randomRows(4, config, 2);
    expect(await skipping.runner.compute(rows, midway(config))).toEqual(
      await plain.runner.compute(rows, midway(config)),
    );
    skipping.runner.commit(midway(config));
    plain.runner.commit(midway(config));
    expect(await trainingState(skipping)).toEqual(await trainingState(plain));
  });
});

describe("the first step", () => {
  test("does not see what lay in the memory of its gradients before", async () => {
    const config = tinyTrainConfig();
    const [dirty, clean] = [makeSession(config), makeSession(config)];
    const { parameters, tied } = dirty.factory;
    for (const { grad } of [...parameters, ...tied.map(({ alias }) => alias)]) fill(grad!, Number.NaN);
    const rows = randomRows(4, config, 2);
    expect(await dirty.runner.compute(rows, midway(config))).toEqual(
      await clean.runner.compute(rows, midway(config)),
    );
    expect(await gradients(dirty)).toEqual(await gradients(clean));
  });
});

describe("memory", () => {
  test.each<[string, Partial<TrainConfig>]>([
    ["plain", {}],
    ["in bf16", { precision: "bf16" }],
    ["with a tree of gradients", { microBatchRows: 1, gradientShards: 4 }],
  ])("is the same after every step, %s", async (_, changes) => {
    const config = tinyTrainConfig(changes);
    const session = makeSession(config);
    const { arena } = session.device;
    const before = [arena.liveBytes, arena.liveCount];
    for (let i = 0; i < 4; i++) {
      await session.runner.compute(randomRows(4, config, i), midway(config));
      if (i !== 2) session.runner.commit(midway(config));
      expect([arena.liveBytes, arena.liveCount]).toEqual(before);
    }
  });

  test("is given back whole when the session ends", async () => {
    const session = makeSession(tinyTrainConfig({}, { numNextnPredictLayers: 2 }));
    expect(session.device.arena.liveCount).toBeGreaterThan(100);
    session.dispose();
    expect([session.device.arena.liveBytes, session.device.arena.liveCount]).toEqual([0, 0]);
  });
});

describe("documents that are masked", () => {
  test("learn nothing from one another: the second's tokens do not change the first's gradients", async () => {
    const { data } = tinyTrainConfig();
    const config = tinyTrainConfig({
      data: { ...data, maskDocuments: true },
      batchRows: 1,
      microBatchRows: 1,
      balance: noBalance,
    });
    const lossOf = async (second: readonly number[]): Promise<number> => {
      const session = makeSession(config);
      const first = [10, 11, 12, EOS_ID];
      const whole = await session.runner.compute(
        { tokens: Int32Array.from([...first, ...second]), count: 1, rowLength: 8 },
        midway(config),
      );
      const alone = await session.runner.compute(
        { tokens: Int32Array.from([...second, -1, -1, -1, -1]), count: 1, rowLength: 8 },
        midway(config),
      );
      // Sums over targets: 3 of the first document, those of the second; its first token is predicted from nothing.
      return whole.mainLoss * whole.targets - alone.mainLoss * alone.targets;
    };
    const one = await lossOf([20, 21, 22, 23, 24]);
    expect(one).toBeGreaterThan(3);
    expect(one).toBeCloseTo(await lossOf([40, 33, 5, 9, 44]), 5);
  });
});
