import { describe, expect, onTestFinished, test } from "vitest";
import { makeRandom } from "../../../test/support/random.ts";
import { snapshot } from "../../../test/support/tinyModel.ts";
import {
  EOS_ID,
  makeSession,
  midway,
  PAD_ID,
  randomRows,
  tinyTrainConfig,
} from "../../../test/support/tinyTraining.ts";
import { diskTensors } from "../../checkpoint/index.ts";
import { type Communicator, everyRank, inProcess, type Layout } from "../../parallel/index.ts";
import { NativeBackend, QueueDevice } from "../../tensor/index.ts";
import { teamFor } from "../dataParallel.ts";
import type { ReadWeights, Session } from "../rankSession.ts";
import type { StepRecord } from "../stepRecord.ts";
import { PipelineSession, type PipelineTeam } from "./pipelineSession.ts";

const config = tinyTrainConfig(
  { batchRows: 16, microBatchRows: 1, gradientShards: 4 },
  { numHiddenLayers: 4, numNextnPredictLayers: 1 },
);
const scheduled = midway(config);

/** On the first rank's device lie the first and the last stage alone. */
const four: Layout = { dp: 1, ep: 1, pp: 4, schedule: "dualpipe", zero1: false };
const layouts: readonly (readonly [string, Layout])[] = [
  ["dualpipe", four],
  ["dualpipev, dp=2, ZeRO-1", { dp: 2, ep: 1, pp: 2, schedule: "dualpipev", zero1: true }],
  ["dualpipe, experts shared by 2", { dp: 2, ep: 2, pp: 2, schedule: "dualpipe", zero1: false }],
  ["dualpipev, experts shared by 2, ZeRO-1", { dp: 4, ep: 2, pp: 2, schedule: "dualpipev", zero1: true }],
];

function open(communicator: Communicator, layout: Layout): PipelineSession {
  const team = teamFor(communicator, layout) as PipelineTeam;
  return new PipelineSession(communicator.device, config, { padId: PAD_ID, eosId: EOS_ID }, team);
}

function onRanks<T>({ dp, pp }: Layout, body: (world: Communicator) => Promise<T>): Promise<T[]> {
  const ranks = inProcess(dp * pp, {
    backend: "native",
    limitBytes: 2 ** 28,
    threads: 2,
    timeoutSeconds: 20,
  });
  onTestFinished(async () => {
    for (const { device } of ranks) await device.dispose();
  });
  return everyRank(ranks, body);
}

function alone(): Session {
  const device = new QueueDevice(new NativeBackend({ threads: 2 }), 2 ** 28);
  onTestFinished(() => device.dispose());
  return makeSession(config, device);
}

async function step({ runner }: Session, seed: number): Promise<StepRecord> {
  const record = await runner.compute(randomRows(config.batchRows, config, seed), scheduled);
  runner.commit(scheduled);
  return record;
}

/** As a checkpoint's reader: numbers that follow from a tensor's name, where they are wanted. */
const readOther: ReadWeights = async (factory, place) => {
  for (const disk of diskTensors(factory)) {
    const part = disk.isCopy ? null : place(disk);
    if (part === null) continue;
    const random = makeRandom(
      [...disk.name].reduce((hash, letter) => (31 * hash + letter.charCodeAt(0)) >>> 0, 7),
    );
    part.write(Array.from({ length: part.size }, () => 0.05 * random()));
  }
};

describe.each(layouts)("a pipeline's session: %s", (_, layout) => {
  test("assembles what all ranks trained: after two steps one process's weights and router biases", async () => {
    const single = alone();
    const first = await snapshot(single.factory);
    for (const seed of [3, 4]) await step(single, seed);
    const wanted = await snapshot(single.factory);
    for (const { path } of single.factory.buffers) expect(wanted.get(path), path).not.toBe(first.get(path));
    const found = await onRanks(layout, async (world) => {
      const session = open(world, layout);
      session.initialize();
      for (const seed of [3, 4]) await step(session, seed);
      session.assemble();
      return world.rank === 0 ? snapshot(session.factory) : null;
    });
    expect(found[0]).toEqual(wanted);
  });

  test("reads a model's numbers to where every rank holds them, without room for the rest", async () => {
    const single = alone();
    await single.readFrom(readOther);
    single.settleRead();
    single.optimizer.initialize();
    const wanted = await snapshot(single.factory);
    const experts = await Promise.all(
      single.factory.experts.map(
        async ({ weight }) => [weight.path, await weight.master.readBytes()] as const,
      ),
    );
    const record = await step(single, 3);
    await onRanks(layout, async (world) => {
      const session = open(world, layout);
      const { arena } = world.device;
      const [standing, highest] = [arena.liveBytes, arena.highWaterBytes];
      await session.readFrom(readOther);
      // Not even for a moment: the whole model may not fit.
      expect(arena.highWaterBytes).toBe(highest);
      session.settleRead();
      expect(arena.liveBytes).toBe(standing);
      for (const factory of session.heldFactories) {
        const found = await snapshot(factory);
        expect(found.size).toBeGreaterThan(0);
        for (const { weight } of factory.experts) {
          found.delete(weight.path);
          const own = await weight.master.readBytes();
          const start = (world.rank % layout.ep) * own.length;
          const all = new Map(experts).get(weight.path)!;
          expect(all.length).toBe(layout.ep * own.length);
          expect(Buffer.compare(own, all.subarray(start, start + own.length)), weight.path).toBe(0);
        }
        for (const [path, hash] of found) expect(hash, path).toBe(wanted.get(path));
      }
      session.optimizer.initialize();
      // The packed weights follow the masters.
      expect(await step(session, 3)).toEqual(record);
    });
  });

  test("asks for a weight's moments ranks that have them, its shares in order; all ranks name the same", async () => {
    const said = await onRanks(layout, async (world) => {
      const session = open(world, layout);
      return {
        asked: session.factory.parameters.map(({ path }) => session.askedFor(path, "moments")),
        paths: session.factory.parameters.map(({ path }) => path),
        moments: new Set(session.optimizer.parameters.map(({ path }) => path)),
      };
    });
    for (const { asked } of said) expect(asked).toEqual(said[0]!.asked);
    for (const [i, path] of said[0]!.paths.entries()) {
      const asked = said[0]!.asked[i]!;
      expect(asked, path).toHaveLength(path.includes(".experts.") ? layout.ep : 1);
      const having = said.flatMap(({ moments }, rank) => (moments.has(path) ? [rank] : []));
      for (const [share, rank] of asked.entries()) {
        const alike = having.filter((one) => asked.length === 1 || one % layout.ep === share);
        expect(alike, path).toContain(rank);
        // The first rank asks nobody for what it has.
        if (alike.includes(0)) expect(rank, path).toBe(0);
        if (layout.zero1) expect(alike, path).toEqual([rank]);
      }
    }
    expect(new Set(said[0]!.asked.flat()).size).toBeGreaterThan(1);
  });

  test("gives all memory back when it is disposed of after a step", async () => {
    await onRanks(layout, async (world) => {
      const before = world.device.arena.liveBytes;
      const session = open(world, layout);
      session.initialize();
      await step(session, 3);
      expect(world.device.arena.liveBytes).toBeGreaterThan(before);
      session.dispose();
      expect(world.device.arena.liveBytes).toBe(before);
    });
  });
});

test("only the first rank has the whole model in memory; the others have the masters of their stages", async () => {
  const held = await onRanks(four, async (world) => {
    const session = open(world, four);
    return session.factory.parameters.map(({ path }) => session.masterOf(path) !== null);
  });
  expect(held[0]!.every(Boolean)).toBe(true);
  for (const rank of [1, 2, 3]) expect(new Set(held[rank])).toEqual(new Set([true, false]));
  // The mirrored ranks have the same stages.
  expect(held[1]).toEqual(held[2]);
});
