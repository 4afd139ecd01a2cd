import { expect, onTestFinished, test } from "vitest";
import { hashOf } from "../../test/support/tinyModel.ts";
import { EOS_ID, midway, PAD_ID, randomRows, tinyTrainConfig } from "../../test/support/tinyTraining.ts";
import { distance } from "../../test/support/tolerance.ts";
import { ParameterFactory, precisions } from "../model/index.ts";
import { addByTree, type Communicator, everyRank, inProcess } from "../parallel/index.ts";
import { fill, QueueDevice, ReferenceBackend } from "../tensor/index.ts";
import type { TrainConfig } from "./config.ts";
import { DataParallel, type Team } from "./dataParallel.ts";
import { estimateStep } from "./estimate.ts";
import { TrainSession } from "./session.ts";

const config = tinyTrainConfig({ microBatchRows: 1, gradientShards: 4 });

function ranks(count: number): readonly Communicator[] {
  const communicators = inProcess(count, { backend: "reference", limitBytes: 2 ** 28 });
  onTestFinished(async () => {
    for (const { device } of communicators) await device.dispose();
  });
  return communicators;
}

function open(device: QueueDevice, team: Team | null, its: TrainConfig = config): TrainSession {
  const session = new TrainSession(device, its, { padId: PAD_ID, eosId: EOS_ID }, team);
  session.initialize();
  return session;
}

function alone(its: TrainConfig = config): TrainSession {
  return open(new QueueDevice(new ReferenceBackend(), 2 ** 28), null, its);
}

function compute(session: TrainSession, wantsToStop: boolean = false) {
  const { batchRows } = session.config;
  return session.runner.compute(
    randomRows(batchRows, session.config, 3),
    midway(session.config),
    wantsToStop,
  );
}

async function gradHashes({ factory }: TrainSession): Promise<string[]> {
  return Promise.all(factory.parameters.map(({ grad }) => hashOf(grad!)));
}

test("every gradient is at its owner what one process sums, and each parameter has one owner", async () => {
  const single = alone();
  await compute(single);
  const wanted = await gradHashes(single);
  const owned = await everyRank(ranks(4), async (communicator) => {
    const session = open(communicator.device, { communicator, zero1: true });
    await compute(session);
    const own = await gradHashes(session);
    return own.flatMap((hash, i) => (session.dataParallel!.owns(i) ? [[i, hash] as const] : []));
  });
  expect(owned.every((list) => list.length > 0)).toBe(true);
  const all = owned.flat().sort(([a], [b]) => a - b);
  expect(all.map(([i]) => i)).toEqual(wanted.map((_, i) => i));
  expect(all.map(([, hash]) => hash)).toEqual(wanted);
});

test("the first step's gradients with other numbers of shards differ by rounding alone", async () => {
  const gradients = async (gradientShards: number): Promise<Map<string, Float64Array>> => {
    const session = alone(tinyTrainConfig({ microBatchRows: 1, batchRows: 8, gradientShards }));
    await compute(session);
    const grads = await Promise.all(
      session.factory.parameters.map(
        async ({ path, grad }) => [path, Float64Array.from(await grad!.read())] as const,
      ),
    );
    return new Map(grads);
  };
  const one = await gradients(1);
  for (const shards of [2, 8]) {
    for (const [path, grad] of await gradients(shards))
      expect(distance(grad, one.get(path)!).frobenius, path).toBeLessThan(1e-6);
  }
});

test("the wish of the first rank to stop reaches all with the same step, and nobody else's does", async () => {
  const asked = await everyRank(ranks(2), async (communicator) => {
    const session = open(communicator.device, { communicator, zero1: false });
    const { rank } = communicator;
    const first = await compute(session, rank === 1);
    session.runner.commit(midway(config));
    const second = await compute(session, rank === 0);
    return [first.isAskedToStop, second.isAskedToStop];
  });
  expect(asked).toEqual([
    [false, true],
    [false, true],
  ]);
});

test("a gradient that is not finite on one rank makes the norm so on all", async () => {
  const norms = await everyRank(ranks(2), async (communicator) => {
    const session = open(communicator.device, { communicator, zero1: true });
    // The second rank's share alone goes through a spoilt weight.
    if (communicator.rank === 1) {
      const [embedding] = session.factory.parameters;
      fill(embedding!.master, Number.NaN);
    }
    return (await compute(session)).gradNorm;
  });
  expect(norms).toEqual([Number.NaN, Number.NaN]);
});

test("after a step the weights are equal on all ranks and no gradient is left", async () => {
  const states = await everyRank(ranks(2), async (communicator) => {
    const session = open(communicator.device, { communicator, zero1: true });
    await compute(session);
    session.runner.commit(midway(config));
    for (const { grad } of session.factory.parameters)
      expect(new Set(await grad!.read())).toEqual(new Set([0]));
    return Promise.all(session.factory.parameters.map(({ master }) => hashOf(master)));
  });
  expect(states[1]).toEqual(states[0]);
});

test("with ZeRO-1 the plan has each moment once over all ranks, without on every rank", async () => {
  const momentBytes = async (dp: number, zero1: boolean): Promise<number[]> => {
    const layout = { dp, ep: 1, pp: 1, zero1, schedule: "dualpipe" } as const;
    const parts = Array.from(
      { length: dp },
      async (_, rank) => (await estimateStep(config, { layout, rank })).parts,
    );
    return (await Promise.all(parts)).map(({ moments }) => moments);
  };
  const [whole = 0] = await momentBytes(1, false);
  expect(await momentBytes(2, false)).toEqual([whole, whole]);
  const sharded = await momentBytes(4, true);
  expect(sharded.reduce((sum, bytes) => sum + bytes, 0)).toBe(whole);
  expect(Math.max(...sharded)).toBeLessThan(0.4 * whole);
});

test("the plan of a rank names the memory that its steps really take", async () => {
  const layout = { dp: 2, ep: 1, pp: 1, zero1: true, schedule: "dualpipe" } as const;
  const used = await everyRank(ranks(2), async (communicator) => {
    const session = open(communicator.device, { communicator, zero1: true });
    for (let i = 0; i < 2; i++) {
      await compute(session);
      session.runner.commit(midway(config));
    }
    return communicator.device.arena.highWaterBytes;
  });
  const planned = await Promise.all([0, 1].map((rank) => estimateStep(config, { layout, rank })));
  expect(planned.map(({ nativeBytes }) => nativeBytes)).toEqual(used);
});

/** A rank's gradients of the experts that it has, of different size for each sender: another order, other roundings. */
function gradientOf(data: number, direction: number, expert: number): number {
  return Math.fround(1 / (1 + 2 * data + direction) + 1e-7 * (1 + expert) * 3 ** data);
}

test.each([
  [2, 2, 1],
  [4, 2, 1],
  [2, 2, 2],
  [4, 2, 2],
  [4, 4, 2],
])(
  "experts shared by ranks: dp=%i, ep=%i, %i directions add all senders in the order of one process",
  async (dp, ep, directions) => {
    const { model } = config;
    const count = model.nRoutedExperts / ep;
    const shape = [model.nRoutedExperts, 2, 3];
    const owned = await everyRank(ranks(dp * directions), async (communicator) => {
      const { device, rank } = communicator;
      const [data, direction] = [Math.floor(rank / directions), rank % directions];
      const share = data % ep;
      const factory = new ParameterFactory(device, model, {
        precision: precisions.f32,
        isTrained: true,
        experts: { first: share * count, count, senders: ep },
      });
      const plain = factory.matrix("plain", [2, 3]);
      const weights = ["a", "b"].map((path) => factory.routed(path, shape, "experts"));
      fill(plain.grad!, gradientOf(data, direction, 0));
      for (const { bySender } of weights) {
        for (const [sender, { grad }] of bySender.entries()) {
          const from = data - share + sender;
          for (let e = 0; e < count; e++)
            fill(grad!.rows(e, e + 1), gradientOf(from, direction, share * count + e));
        }
      }
      const team = { communicator, zero1: true, ep };
      const { parameters, experts } = factory;
      const dataParallel = new DataParallel(team, parameters, { experts, directions });
      dataParallel.reduceGradients();
      for (const { bySender } of weights)
        for (const { grad } of bySender.slice(1)) expect(new Set(await grad!.read())).toEqual(new Set([0]));
      const own = [...parameters.keys()].filter((i) => dataParallel.owns(i));
      return Promise.all(
        own.map(async (i) => ({ path: parameters[i]!.path, share, sums: await parameters[i]!.grad!.read() })),
      );
    });
    const device = new QueueDevice(new ReferenceBackend(), 2 ** 20);
    /** The tree over all blocks, as one process adds it. */
    const wanted = async (expert: number): Promise<number> => {
      const leaves = Array.from({ length: dp * directions }, (_, i) =>
        device.from([gradientOf(Math.floor(i / directions), i % directions, expert)], [1], "f32"),
      );
      addByTree(leaves);
      return (await leaves[0]!.read())[0]!;
    };
    const all = owned.flat();
    expect(all.filter(({ path }) => path === "plain")).toHaveLength(1);
    for (const path of ["a", "b"])
      for (let share = 0; share < ep; share++)
        expect(all.filter((one) => one.path === path && one.share === share)).toHaveLength(1);
    for (const { path, share, sums } of all) {
      const experts = path === "plain" ? [0] : Array.from({ length: count }, (_, e) => share * count + e);
      const numbers = await Promise.all(experts.map(wanted));
      expect(Array.from(sums)).toEqual(numbers.flatMap((value) => Array.from({ length: 6 }, () => value)));
    }
  },
);
