import { expect, onTestFinished, test } from "vitest";
import { hashOf } from "../../test/support/tinyModel.ts";
import { EOS_ID, midway, PAD_ID, randomRows, tinyTrainConfig } from "../../test/support/tinyTraining.ts";
import { distance } from "../../test/support/tolerance.ts";
import { type Communicator, everyRank, inProcess } from "../parallel/index.ts";
import { fill, QueueDevice, ReferenceBackend } from "../tensor/index.ts";
import type { TrainConfig } from "./config.ts";
import type { Team } from "./dataParallel.ts";
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
