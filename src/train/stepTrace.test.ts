import { describe, expect, test } from "vitest";
import { nativeIsMissing } from "../../test/support/native.ts";
import { sharedConfig } from "../../test/support/rankedTraining.ts";
import { EOS_ID, PAD_ID, randomRows } from "../../test/support/tinyTraining.ts";
import {
  compareWithSimulation,
  everyRank,
  inProcess,
  type Layout,
  type RankSpans,
  withTravel,
  worldSize,
  writeAction,
} from "../parallel/index.ts";
import { teamFor } from "./dataParallel.ts";
import { openSession } from "./openSession.ts";
import { scheduleAt } from "./schedule.ts";
import { StepTrace } from "./stepTrace.ts";

const config = sharedConfig("unit", "f32", { batchRows: 8, gradientShards: 2 });

/** What the first rank is given to keep, each time; and the plan of each rank's pipeline. */
async function traced(layout: Layout, steps: number, taken: number) {
  const options = { backend: "native", limitBytes: 2 ** 28, threads: 1, isTraced: true } as const;
  const worlds = inProcess(worldSize(layout), { ...options, timeoutSeconds: 60 });
  const kept: (readonly RankSpans[])[] = [];
  const plans = await everyRank(worlds, async (world) => {
    const session = openSession(
      world.device,
      config,
      { padId: PAD_ID, eosId: EOS_ID },
      teamFor(world, layout),
    );
    session.initialize();
    const request = {
      steps,
      keep: async (ranks: readonly RankSpans[]) => {
        expect(world.rank).toBe(0);
        kept.push(ranks);
      },
    };
    const trace = new StepTrace(session, world, request);
    for (let step = 0; step < taken; step++) {
      await trace.beforeStep();
      const scheduled = scheduleAt(config, { step, share: 0 });
      await session.runner.compute(randomRows(config.batchRows, config, step), scheduled);
      session.runner.commit(scheduled);
      await trace.afterStep();
    }
    await trace.end();
    await world.device.drain();
    session.dispose();
    return session.pipeline;
  });
  for (const { device } of worlds) await device.dispose();
  return { kept, plans };
}

const pipeline: Layout = { dp: 2, ep: 1, pp: 2, zero1: false, schedule: "dualpipe" };
const whole: Layout = { dp: 2, ep: 1, pp: 1, zero1: true, schedule: "dualpipe" };

describe.skipIf(nativeIsMissing)("a trace of steps", () => {
  test("has the actions of every rank's own pipeline, once for each recorded step", async () => {
    const { kept, plans } = await traced(pipeline, 2, 5);
    expect(kept).toHaveLength(1);
    const [ranks] = kept as [readonly RankSpans[]];
    expect(ranks.map(({ rank }) => rank)).toEqual([0, 1, 2, 3]);
    for (const { rank, spans } of ranks) {
      const { plan, rank: place } = plans[rank]!;
      const names = spans.filter(({ category }) => category === "compute").map(({ name }) => name);
      for (const action of plan.actions[place]!) expect(names).toContain(writeAction(plan, action));
      const updates = spans.filter(({ name }) => name === "update");
      const sums = spans.filter(({ name }) => name === "sums over ranks");
      // The second recorded step comes behind the first one's update.
      expect(sums.at(-1)!.start).toBeGreaterThan(updates[0]!.end);
      expect(sums[0]!.end).toBeLessThan(updates[0]!.start);
    }
    // Two pipelines side by side are not one that could be simulated.
    expect(compareWithSimulation(ranks)).toBeNull();
  });

  test("finds for every message that is awaited the one that was sent", async () => {
    const { kept } = await traced({ ...pipeline, dp: 1 }, 1, 3);
    const ranks = withTravel(kept[0]!);
    const awaited = kept[0]!.flatMap(({ spans }) => spans.flatMap(({ awaits = [] }) => awaits));
    const sent = kept[0]!.flatMap(({ sends = [] }) => sends);
    expect(awaited.length).toBe(sent.length);
    expect(sent.length).toBeGreaterThan(20);
    const time = (given: readonly RankSpans[], category: string): number =>
      given
        .flatMap(({ spans }) => spans)
        .filter((span) => span.category === category)
        .reduce((sum, { start, end }) => sum + end - start, 0);
    // Cutting waits in two neither adds nor loses time.
    const cut = time(ranks, "wait") + time(ranks, "communication");
    expect(cut).toBeCloseTo(time(kept[0]!, "wait"), 9);
    const comparison = compareWithSimulation(kept[0]!)!;
    expect(comparison.plan).toEqual(expect.objectContaining({ schedule: "dualpipe", ranks: 2 }));
    expect(comparison.length).toBeGreaterThan(0);
  });

  test("of ranks that have the whole model has their micro-batches, sums and updates", async () => {
    const { kept, plans } = await traced(whole, 1, 4);
    expect(plans).toEqual([null, null]);
    for (const { spans, pipeline: none } of kept[0]!) {
      expect(none).toBeUndefined();
      const names = new Set(spans.filter(({ category }) => category === "compute").map(({ name }) => name));
      for (const name of ["micro-batch", "sums over ranks", "update"]) expect(names).toContain(name);
    }
  });

  test("keeps what there is when the run ends before, and nothing of steps that only warm up", async () => {
    expect((await traced(whole, 5, 3)).kept).toHaveLength(1);
    expect((await traced(whole, 5, 2)).kept).toHaveLength(0);
  });
});
