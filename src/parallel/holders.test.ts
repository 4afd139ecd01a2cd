import { describe, expect, test } from "vitest";
import { directionsOf, pipelineRanks, stageHolders, worldRank } from "./holders.ts";
import { chunksOf, type PipelinePlan, stageOf } from "./schedule/plan.ts";
import { planSchedule, schedules } from "./schedule/planSchedule.ts";

/** Which rank of a pipeline computes each micro-batch with the stage, as the plan's actions have it. */
function computedBy(plan: PipelinePlan, stage: number): readonly number[] {
  const ranks: number[] = [];
  for (const [rank, actions] of plan.actions.entries()) {
    for (const chunk of actions.flatMap(chunksOf)) {
      if (stageOf(plan, { rank, chunk }) === stage) ranks[chunk.microBatch] = rank;
    }
  }
  return ranks;
}

test.each([
  { dp: 1, pp: 5 },
  { dp: 4, pp: 1 },
  { dp: 3, pp: 4 },
])("worldRank gives every rank one place, those of a stage next to each other: %o", (sizes) => {
  const world = Array.from({ length: sizes.pp }, (_, p) =>
    Array.from({ length: sizes.dp }, (_, data) => worldRank(sizes, p, data)),
  );
  expect(world.flat()).toEqual([...Array(sizes.dp * sizes.pp).keys()]);
  for (let data = 0; data < sizes.dp; data++) {
    expect(pipelineRanks(sizes, data)).toEqual(world.map((stage) => stage[data]));
  }
});

describe.each(schedules)("holders under %s", (schedule) => {
  const plan = planSchedule(schedule, { ranks: 4, microBatches: 8 });

  test.each([1, 2, 3])("stand in the order of the blocks that they compute, with dp=%d", (dp) => {
    const sizes = { dp, pp: 4 };
    for (let stage = 0; stage < plan.stages; stage++) {
      const blocks = Array.from({ length: dp }, (_, data) =>
        computedBy(plan, stage).map((rank) => worldRank(sizes, rank, data)),
      ).flat();
      const runs = blocks.filter((rank, i) => rank !== blocks[i - 1]);
      expect(stageHolders(sizes, plan, stage)).toEqual(runs);
      expect(runs.length).toBe(dp * directionsOf(plan));
    }
  });

  test("are just the ranks that have the stage, once each", () => {
    for (let stage = 0; stage < plan.stages; stage++) {
      const having = [...Array(8).keys()].filter((r) => plan.stagesOf[Math.floor(r / 2)]!.includes(stage));
      expect(stageHolders({ dp: 2, pp: 4 }, plan, stage).toSorted((a, b) => a - b)).toEqual(having);
    }
  });
});
