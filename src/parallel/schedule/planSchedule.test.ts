import { describe, expect, test } from "vitest";
import { ConfigError } from "../../base/index.ts";
import type { PipelineSize, Schedule } from "./plan.ts";
import { planSchedule, schedules } from "./planSchedule.ts";

/** What the schedules are said to take. */
const takes: Readonly<Record<Schedule, (size: PipelineSize) => boolean>> = {
  "1f1b": () => true,
  zb: () => true,
  dualpipe: ({ ranks: r, microBatches: m }) => r % 2 === 0 && m % 2 === 0 && m >= 2 * r,
  dualpipev: ({ ranks: r, microBatches: m }) => m >= 2 * r,
};

const sizes = [1, 2, 3, 4, 5, 6].flatMap((ranks) =>
  Array.from({ length: 14 }, (_, i): PipelineSize => ({ ranks, microBatches: i + 1 })),
);

test("schedules names every schedule once", () => {
  expect(schedules.toSorted()).toEqual(Object.keys(takes).toSorted());
});

describe.each(schedules)("planSchedule of %s", (schedule) => {
  test("makes a plan of these numbers where it can, and refuses the others", () => {
    for (const size of sizes) {
      if (takes[schedule](size)) {
        const stages = schedule === "dualpipev" ? 2 * size.ranks : size.ranks;
        const plan = planSchedule(schedule, size);
        expect(plan).toMatchObject({ schedule, ...size, stages });
        expect(plan.actions.length).toBe(size.ranks);
        expect(new Set(plan.stagesOf.flat())).toEqual(new Set(Array(stages).keys()));
      } else {
        expect(() => planSchedule(schedule, size)).toThrow(ConfigError);
        expect(() => planSchedule(schedule, size)).toThrow(`schedule ${schedule}: `);
      }
    }
  });

  test.each([0, -2, 1.5, Number.NaN, Number.POSITIVE_INFINITY])("refuses %d of either", (count) => {
    expect(() => planSchedule(schedule, { ranks: count, microBatches: 8 })).toThrow(ConfigError);
    expect(() => planSchedule(schedule, { ranks: 2, microBatches: count })).toThrow(ConfigError);
  });
});
