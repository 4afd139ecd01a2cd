import { describe, expect, test } from "vitest";
import { presetConfig } from "../model/index.ts";
import { namedCluster } from "./cluster.ts";
import { publishedLayout, publishedStep } from "./published.ts";
import { bestLayout, sweepLayouts } from "./sweep.ts";
import { planTraining } from "./training.ts";

const inputs = {
  config: presetConfig("v3-671b"),
  cluster: namedCluster("h800x2048"),
  size: publishedStep,
  tokens: 14.8e12,
};

describe("sweepLayouts", () => {
  const started = process.cpuUsage();
  const sweep = sweepLayouts(inputs);
  const { user, system } = process.cpuUsage(started);

  test("plans at least 200 layouts of V3 in less than 5 s", () => {
    expect(sweep.rows.length).toBeGreaterThanOrEqual(200);
    // Of the processor: other programs are not this one's slowness.
    expect((user + system) / 1e6).toBeLessThan(5);
  });

  test("ranks what fits by time, then what does not by memory", () => {
    const keys = sweep.rows.map((row) => (row.fits ? row.stepSeconds : row.memoryBytes));
    expect(Math.max(...sweep.rows.map(({ stepSeconds }) => stepSeconds))).toBeLessThan(1e9);
    expect(keys.toSorted((a, b) => a - b)).toEqual(keys);
    expect(sweep.rows.some(({ fits }) => !fits)).toBe(true);
    for (const row of sweep.rows) {
      expect(row.warnings.some((warning) => warning.startsWith("does not fit"))).toBe(!row.fits);
    }
  });

  test("has the published layout among the best, within 5 % of the first", () => {
    const place = sweep.rows.findIndex(({ layout }) =>
      Object.entries(publishedLayout).every(([key, value]) => layout[key as keyof typeof layout] === value),
    );
    expect(place).toBeGreaterThanOrEqual(0);
    expect(place).toBeLessThan(12);
    expect(sweep.rows[place]!.stepSeconds / sweep.rows[0]!.stepSeconds).toBeLessThan(1.05);
  });

  test("counts what the rules refuse, with an example of each", () => {
    expect(sweep.refused.map(({ kind }) => kind)).toEqual(
      expect.arrayContaining(["experts", "stages", "batch"]),
    );
    for (const { count, problem } of sweep.refused) {
      expect(count).toBeGreaterThan(0);
      expect(problem.fix).not.toBe("");
    }
  });

  test("a row has the figures of the layout's own plan", () => {
    const row = sweep.rows[5]!;
    const plan = planTraining({ ...inputs, layout: row.layout });
    expect(plan.times.at(-1)!.stepSeconds).toBe(row.stepSeconds);
    expect(Math.max(...plan.memory.map(({ total }) => total))).toBe(row.memoryBytes);
  });

  test("a small cluster with thousands of micro-batches takes no longer", () => {
    const before = process.cpuUsage();
    const small = sweepLayouts({ ...inputs, cluster: namedCluster("h800x64") });
    const { user, system } = process.cpuUsage(before);
    expect(small.rows.length).toBeGreaterThan(100);
    expect((user + system) / 1e6).toBeLessThan(5);
    expect(small.rows.every(({ fits }) => !fits)).toBe(true);
  });

  test("keeps to what is fixed", () => {
    const { rows } = sweepLayouts(inputs, { pp: [16], ep: [64], schedule: ["zb"] });
    expect(rows.map(({ layout }) => [layout.pp, layout.ep, layout.schedule])).toEqual([
      [16, 64, "zb"],
      [16, 64, "zb"],
    ]);
  });
});

describe("bestLayout", () => {
  test("fills in what is not given", () => {
    expect(bestLayout(inputs, { pp: [16], ep: [64] })).toEqual(publishedLayout);
  });

  test("throws the rule that refuses most, where none is left", () => {
    expect(() => bestLayout(inputs, { ep: [3] })).toThrow(/ep 3 does not divide dp/);
    expect(() => bestLayout(inputs, { pp: [7] })).toThrow(/2044, the cluster h800x2048 has 2048 devices/);
  });
});
