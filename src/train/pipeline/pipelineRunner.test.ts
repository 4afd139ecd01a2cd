import { expect, onTestFinished, test } from "vitest";
import { hashOf, snapshot } from "../../../test/support/tinyModel.ts";
import {
  EOS_ID,
  makeSession,
  midway,
  PAD_ID,
  randomRows,
  tinyTrainConfig,
} from "../../../test/support/tinyTraining.ts";
import { type Communicator, everyRank, inProcess, type Layout } from "../../parallel/index.ts";
import { NativeBackend, QueueDevice } from "../../tensor/index.ts";
import { teamFor } from "../dataParallel.ts";
import { estimateStep } from "../estimate.ts";
import type { Session } from "../rankSession.ts";
import type { StepRecord } from "../stepRecord.ts";
import { PipelineSession, type PipelineTeam } from "./pipelineSession.ts";

const ROWS = 16;
const config = tinyTrainConfig(
  { batchRows: ROWS, microBatchRows: 1, gradientShards: 4 },
  { numHiddenLayers: 4, numNextnPredictLayers: 1 },
);
const scheduled = midway(config);
const layouts: readonly Layout[] = [
  { dp: 1, ep: 1, pp: 2, schedule: "dualpipe", zero1: true },
  { dp: 1, ep: 1, pp: 2, schedule: "dualpipev", zero1: true },
  { dp: 2, ep: 2, pp: 2, schedule: "dualpipe", zero1: true },
  { dp: 2, ep: 2, pp: 2, schedule: "dualpipev", zero1: false },
];

function onRanks<T>(
  layout: Layout,
  body: (session: Session, world: Communicator) => Promise<T>,
): Promise<T[]> {
  const limits = { limitBytes: 2 ** 28, threads: 2, timeoutSeconds: 20 };
  const ranks = inProcess(layout.dp * layout.pp, { backend: "native", ...limits });
  onTestFinished(async () => {
    for (const { device } of ranks) await device.dispose();
  });
  return everyRank(ranks, (communicator) => {
    const team = teamFor(communicator, layout) as PipelineTeam;
    const roles = { padId: PAD_ID, eosId: EOS_ID };
    const session = new PipelineSession(communicator.device, config, roles, team);
    session.initialize();
    return body(session, communicator);
  });
}

function alone(): Session {
  const device = new QueueDevice(new NativeBackend({ threads: 2 }), 2 ** 28);
  onTestFinished(() => device.dispose());
  return makeSession(config, device);
}

function compute({ runner }: Session, seed: number, count: number = ROWS): Promise<StepRecord> {
  return runner.compute(randomRows(count, config, seed), scheduled);
}

/** Weights, router biases and moments of a rank. */
async function stateOf({ heldFactories, optimizer }: Session): Promise<Map<string, string>> {
  const state = new Map<string, string>();
  for (const factory of heldFactories)
    for (const [path, hash] of await snapshot(factory)) state.set(path, hash);
  for (const [i, { m, v }] of optimizer.moments.entries()) {
    const { path } = optimizer.parameters[i]!;
    state.set(`m ${path}`, await hashOf(m));
    if (v !== null) state.set(`v ${path}`, await hashOf(v));
  }
  return state;
}

test.each(layouts)(
  "a step that is skipped leaves no trace on any rank: $schedule, ep=$ep",
  async (layout) => {
    const stepped = async (skipped: readonly number[]) =>
      onRanks(layout, async (session) => {
        const before = await stateOf(session);
        for (const seed of skipped) await compute(session, seed);
        expect(await stateOf(session)).toEqual(before);
        const record = await compute(session, 3);
        session.runner.commit(scheduled);
        const state = await stateOf(session);
        expect(state).not.toEqual(before);
        return { record, state };
      });
    expect(await stepped([8])).toEqual(await stepped([]));
  },
);

test.each(layouts)(
  "a batch ramp's steps of 8 and 16 micro-batches are one process's: $schedule, ep=$ep",
  async (layout) => {
    const counts = [8, 16, 8];
    const single = alone();
    const records: StepRecord[] = [];
    for (const [seed, count] of counts.entries()) {
      records.push(await compute(single, seed, count));
      single.runner.commit(scheduled);
    }
    const wanted = await snapshot(single.factory);
    await onRanks(layout, async (session, { rank }) => {
      for (const [seed, count] of counts.entries()) {
        expect(await compute(session, seed, count), `step ${seed}`).toEqual(records[seed]);
        session.runner.commit(scheduled);
      }
      session.assemble();
      if (rank === 0) expect(await snapshot(session.factory)).toEqual(wanted);
    });
  },
);

test("the wish of the first rank to stop reaches all with the same step, and nobody else's does", async () => {
  const asked = await onRanks(layouts[0]!, async ({ runner }, { rank }) => {
    const told: boolean[] = [];
    for (const wants of [rank === 1, rank === 0]) {
      const record = await runner.compute(randomRows(ROWS, config, 3), scheduled, wants);
      runner.commit(scheduled);
      told.push(record.isAskedToStop);
    }
    return told;
  });
  expect(asked).toEqual([
    [false, true],
    [false, true],
  ]);
});

test.each(layouts)(
  "memory is the same after every step, and grows by none after the first: $schedule, ep=$ep",
  async (layout) => {
    await onRanks(layout, async (session, { device: { arena } }) => {
      const standing = arena.liveBytes;
      const peaks: number[] = [];
      for (const seed of [1, 2, 3]) {
        await compute(session, seed);
        if (seed !== 2) session.runner.commit(scheduled);
        expect(arena.liveBytes, `step ${seed}`).toBe(standing);
        peaks.push(arena.highWaterBytes);
      }
      expect(peaks[0]).toBeGreaterThan(standing);
      expect(new Set(peaks).size).toBe(1);
    });
  },
);

test.each(layouts)(
  "the plan of a rank names the memory that its steps take: $schedule, ep=$ep",
  async (layout) => {
    const used = await onRanks(layout, async (session, { device: { arena } }) => {
      for (const seed of [1, 2]) {
        await compute(session, seed);
        session.runner.commit(scheduled);
      }
      return arena.highWaterBytes;
    });
    const planned = await Promise.all(used.map((_, rank) => estimateStep(config, { layout, rank })));
    expect(planned.map(({ nativeBytes }) => nativeBytes)).toEqual(used);
  },
);
