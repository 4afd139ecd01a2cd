import { describe, expect, test } from "vitest";
import { planDualPipe } from "../schedule/dualPipe.ts";
import { writeAction } from "../schedule/notation.ts";
import { stageOf } from "../schedule/plan.ts";
import { planSchedule, schedules } from "../schedule/planSchedule.ts";
import { actionMark, readMark, spanChunks } from "./marks.ts";

describe("marks", () => {
  test.each(schedules)("of every action of a plan are read as what they stand for: %s", (schedule) => {
    const plan = planSchedule(schedule, { ranks: 4, microBatches: 8 });
    for (const [rank, actions] of plan.actions.entries()) {
      const read = readMark(plan, rank);
      for (const [i, action] of actions.entries()) {
        const { name, chunks } = read(actionMark(i));
        expect(name).toBe(writeAction(plan, action));
        expect(chunks).toHaveLength(action.kind === "overlapped" ? 2 : 1);
      }
    }
  });

  test("that are no action are names, and the empty one is other work", () => {
    const read = readMark(planDualPipe({ ranks: 2, microBatches: 4 }), 0);
    expect(read("update")).toEqual({ name: "update", chunks: [] });
    expect(read("")).toEqual({ name: "other work", chunks: [] });
    expect(read(actionMark(1000))).toEqual({ name: "action 1000", chunks: [] });
    expect(readMark(null, 3)(actionMark(0)).chunks).toEqual([]);
  });
});

describe("spanChunks", () => {
  test("say of a pair which chunk goes forwards, which backwards, and their stages", () => {
    const plan = planDualPipe({ ranks: 4, microBatches: 8 });
    for (const [rank, actions] of plan.actions.entries()) {
      const pairs = actions.filter((action) => action.kind === "overlapped");
      expect(pairs.length).toBeGreaterThan(0);
      for (const pair of pairs) {
        expect(spanChunks(plan, rank, pair)).toEqual([
          { ...pair.forward, pass: "forward", stage: stageOf(plan, { rank, chunk: pair.forward }) },
          { ...pair.backward, pass: "backward", stage: stageOf(plan, { rank, chunk: pair.backward }) },
        ]);
      }
    }
  });

  test("tell the parts of a split backward apart", () => {
    const plan = planSchedule("zb", { ranks: 2, microBatches: 4 });
    const passes = plan.actions[0]!.map((action) => spanChunks(plan, 0, action)[0]!.pass);
    expect(passes).toEqual(plan.actions[0]!.map(({ kind }) => kind));
    expect(new Set(passes)).toEqual(new Set(["forward", "backwardInput", "backwardWeight"]));
  });
});
