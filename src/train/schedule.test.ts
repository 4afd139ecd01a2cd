import { describe, expect, test } from "vitest";
import type { TrainConfig } from "./config.ts";
import { defaultTrainConfig } from "./configSchema.ts";
import { batchRowsAt, learningRateAt, plannedRows, planSteps, scheduleAt } from "./schedule.ts";

/** The report's own run: peak 2.2e-4, 14.8T tokens, warm-up long past. */
const report: TrainConfig = (() => {
  const config = defaultTrainConfig("nano", 1000);
  return { ...config, optimizer: { ...config.optimizer, learningRate: 2.2e-4 } };
})();

describe("learningRateAt", () => {
  test.each([
    [9, 2.2e-4],
    [11, 1.9473e-4],
    [12.15, 1.21e-4],
    [13, 6.3396e-5],
    [14.3, 2.2e-5],
    [14.5, 2.2e-5],
    [14.7, 7.3e-6],
  ])("is the report's after %fT of 14.8T tokens", (trillions, wanted) => {
    const rate = learningRateAt(report, { step: 500, share: trillions / 14.8 });
    expect(rate / wanted).toBeCloseTo(1, 4);
  });

  test("rises linearly over the warm-up and reaches the peak with its last step", () => {
    const rates = [0, 1, 14, 29, 30].map((step) => learningRateAt(report, { step, share: 0 }) / 2.2e-4);
    expect(rates).toEqual([1 / 30, 2 / 30, 15 / 30, 1, 1]);
  });
});

describe("scheduleAt", () => {
  test("freezes the router bias for the last 3.4 % and lowers the MTP weight at 67.6 % of the tokens", () => {
    const at = (share: number): [number, number] => {
      const { gamma, mtpWeight } = scheduleAt(report, { step: 500, share });
      return [gamma, mtpWeight];
    };
    expect(at(0)).toEqual([0.008, 0.3]);
    expect(at(0.68)).toEqual([0.008, 0.1]);
    expect(at(0.97)).toEqual([0, 0.1]);
  });
});

describe("planSteps", () => {
  test("grows the batch from a fifth to the whole in whole micro-batches and never shrinks it", () => {
    const config = {
      ...report,
      batchRows: 40,
      microBatchRows: 4,
      schedule: { ...report.schedule, rampStart: 0.2, rampUntil: 0.1 },
    };
    const rows = planSteps(config);
    expect(rows).toHaveLength(1000);
    expect(rows[0]).toBe(8);
    expect(rows.at(-1)).toBe(40);
    expect(rows.every((count, i) => count % 4 === 0 && count >= (rows[i - 1] ?? 0))).toBe(true);
  });

  test("takes no micro-batch before its time: rows are rounded down", () => {
    const schedule = { ...report.schedule, rampStart: 0.2, rampUntil: 0.1 };
    const config = { ...report, batchRows: 40, microBatchRows: 4, schedule };
    // 8 rows and 32 more until a tenth: 23.68 of them at 4.9 %.
    expect([0, 0.049, 0.05, 0.0999, 0.1].map((share) => batchRowsAt(config, share))).toEqual([
      8, 20, 24, 36, 40,
    ]);
  });

  test("has no ramp where a batch has fewer than 16 rows", () => {
    expect(new Set(planSteps(report))).toEqual(new Set([report.batchRows]));
  });
});

describe("plannedRows", () => {
  const ramped = (steps: number): TrainConfig => ({
    ...report,
    steps,
    batchRows: 40,
    microBatchRows: 4,
    schedule: { ...report.schedule, rampStart: 0.2, rampUntil: 0.1 },
  });

  test.each([10, 100, 1000])("a ramped run of %i steps ends at the end of its budget", (steps) => {
    const config = ramped(steps);
    const total = plannedRows(config);
    let seen = 0;
    for (let step = 0; step < steps; step++)
      seen += scheduleAt(config, { step, share: seen / total }).batchRows;
    expect(Math.abs(seen / total - 1)).toBeLessThan(1 / steps);
    expect(total).toBeLessThan(steps * 40);
  });

  test("is steps times rows without a ramp, however long the run", () => {
    expect(plannedRows({ ...report, steps: 1e9 })).toBe(1e9 * report.batchRows);
  });
});
