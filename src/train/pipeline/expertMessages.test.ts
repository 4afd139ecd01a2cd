/** The messages of whole steps, without their numbers: all of them meet, and no rank waits for ever. */
import { beforeAll, describe, expect, test } from "vitest";
import { deliver, type MessageCommand, MessageLog } from "../../../test/support/messageLog.ts";
import { EOS_ID, midway, PAD_ID, randomRows, tinyTrainConfig } from "../../../test/support/tinyTraining.ts";
import {
  type Action,
  actionMark,
  type Chunk,
  type Layout,
  planSchedule,
  QueueCommunicator,
  type Schedule,
  worldSize,
} from "../../parallel/index.ts";
import { QueueDevice } from "../../tensor/index.ts";
import { teamFor } from "../dataParallel.ts";
import { PipelineSession, type PipelineTeam } from "./pipelineSession.ts";
import { exchangeTags } from "./stageModel.ts";

const ROWS = 32;
const schedules: readonly Schedule[] = ["1f1b", "zb", "dualpipe", "dualpipev"];

type Cut = Pick<Layout, "dp" | "ep" | "pp" | "schedule"> & { readonly ranksPerNode: number | null };

const cuts: readonly Cut[] = schedules.flatMap((schedule) => [
  { schedule, dp: 2, ep: 2, pp: 2, ranksPerNode: null },
  { schedule, dp: 4, ep: 2, pp: 2, ranksPerNode: null },
  { schedule, dp: 4, ep: 4, pp: 2, ranksPerNode: 2 },
  { schedule, dp: 2, ep: 2, pp: 4, ranksPerNode: null },
]);

/** One step of one rank. */
async function stepOf(cut: Cut, rank: number): Promise<readonly MessageCommand[]> {
  const layout: Layout = { ...cut, zero1: true };
  const { schedule } = cut;
  const config = tinyTrainConfig(
    { batchRows: ROWS, microBatchRows: 1, gradientShards: 8 },
    // Every stage has experts.
    {
      numHiddenLayers: schedule === "dualpipev" ? 8 : 4,
      firstKDenseReplace: 0,
      numNextnPredictLayers: schedule.startsWith("dualpipe") ? 1 : 0,
    },
  );
  const log = new MessageLog();
  const device = new QueueDevice(log, Number.MAX_SAFE_INTEGER);
  const nobody = { abort: () => undefined };
  const world = QueueCommunicator.world(device, nobody, rank, worldSize(layout));
  const team = teamFor(world, layout, cut.ranksPerNode) as PipelineTeam;
  const session = new PipelineSession(device, config, { padId: PAD_ID, eosId: EOS_ID }, team);
  session.initialize();
  await session.runner.compute(randomRows(ROWS, config, 1), midway(config));
  session.runner.commit(midway(config));
  return log.messages;
}

async function step(cut: Cut): Promise<readonly (readonly MessageCommand[])[]> {
  const ranks = Array.from({ length: cut.dp * cut.pp }, (_, rank) => rank);
  return Promise.all(ranks.map((rank) => stepOf(cut, rank)));
}

function actionsOf({ schedule, dp, pp }: Cut, rank: number): readonly Action[] {
  const plan = planSchedule(schedule, { ranks: pp, microBatches: ROWS / dp });
  return plan.actions[Math.floor(rank / dp)]!;
}

/** The tags with which an action may talk to the experts. */
function tagsOf(action: Action): readonly number[] {
  const there = (chunk: Chunk): number => exchangeTags(chunk).forward;
  const back = (chunk: Chunk): number => exchangeTags(chunk).backward;
  switch (action.kind) {
    case "forward":
      return [there(action.chunk)];
    case "backward":
    case "backwardInput":
      return [back(action.chunk)];
    case "backwardWeight":
      return [];
    case "overlapped":
      return [there(action.forward), back(action.backward)];
  }
}

/** A communicator's second split: the ranks that share experts. */
const EXPERT_CONTEXT = 2;

function isToExperts(
  command: MessageCommand,
): command is Exclude<MessageCommand, { readonly kind: "await" }> {
  return command.kind !== "await" && Math.floor(command.tag / 256) === EXPERT_CONTEXT;
}

describe.each(cuts)("a step by $schedule with dp=$dp, ep=$ep, pp=$pp, nodes of $ranksPerNode", (cut) => {
  let ranks: readonly (readonly MessageCommand[])[];

  beforeAll(async () => {
    ranks = await step(cut);
  }, 60_000);

  test("has every message meet its receive of the same width, in the same action where it is to experts", () => {
    const deliveries = deliver(ranks);
    expect(deliveries.filter(({ sent, received }) => sent.width !== received.width)).toEqual([]);
    const toExperts = deliveries.filter(({ sent }) => isToExperts(sent));
    expect(toExperts.filter(({ sent, received }) => sent.mark !== received.mark)).toEqual([]);
    const groupOf = (rank: number): number => Math.floor(rank / cut.ep);
    expect(toExperts.filter(({ sender, receiver }) => groupOf(sender) !== groupOf(receiver))).toEqual([]);
    expect(toExperts.length).toBeGreaterThan(0);
  });

  test("gives all ranks of an expert group their messages in one order, each chunk with tags of its own", () => {
    for (const [rank, commands] of ranks.entries()) {
      const own = commands.filter((command) => isToExperts(command));
      const told = (list: typeof own): readonly string[] =>
        list.map(({ kind, tag, mark, width }) => `${mark}: ${kind} ${width} with ${tag}`);
      const first = ranks[rank - (rank % cut.ep)]!.filter((command) => isToExperts(command));
      expect(told(own)).toEqual(told(first));
      for (const [i, action] of actionsOf(cut, rank).entries()) {
        const wanted = tagsOf(action);
        expect(new Set(wanted).size).toBe(wanted.length);
        const tags = own.filter(({ mark }) => mark === actionMark(i)).map(({ tag }) => tag % 256);
        expect(new Set(tags)).toEqual(new Set(wanted));
      }
    }
  });
});

test("in an overlapped pair the exchanges of the one begin while those of the other are under way", async () => {
  const cut: Cut = { schedule: "dualpipe", dp: 2, ep: 2, pp: 2, ranksPerNode: null };
  const [commands] = await step(cut);
  const pairs = [...actionsOf(cut, 0).entries()].filter(([, { kind }]) => kind === "overlapped");
  expect(pairs.length).toBeGreaterThan(0);
  for (const [i, action] of pairs) {
    const tags = commands!.flatMap((command) =>
      isToExperts(command) && command.mark === actionMark(i) ? [command.tag % 256] : [],
    );
    const [there] = tagsOf(action);
    const turns = tags.filter((tag, at) => at > 0 && (tag === there) !== (tags[at - 1] === there)).length;
    expect(turns).toBeGreaterThan(4);
  }
});

test("the tags of 64 neighbouring micro-batches, modules and ways all differ, and a communicator has them", () => {
  for (const from of [0, 40]) {
    const tags = Array.from({ length: 64 }, (_, i) =>
      ([0, 1] as const).map((module) => exchangeTags({ module, direction: 0, microBatch: from + i })),
    ).flat();
    const all = tags.flatMap(({ forward, backward }) => [forward, backward]);
    expect(new Set(all).size).toBe(256);
    expect(Math.min(...all)).toBe(0);
    expect(Math.max(...all)).toBe(255);
  }
});
