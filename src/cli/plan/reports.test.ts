import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { presetConfig } from "../../model/index.ts";
import { namedCluster, planTraining, sweepLayouts } from "../../planner/index.ts";
import { planJson, sweepJson } from "./planJson.ts";
import { sweepText } from "./sweepText.ts";
import { table } from "./table.ts";
import { trainingText } from "./trainingText.ts";

const run = {
  config: presetConfig("nano"),
  cluster: namedCluster("h800x8"),
  size: { batchRows: 64, rowLength: 256, precision: "fp8" },
  tokens: 1e9,
} as const;

describe("table", () => {
  test("puts every cell into its column, the first from the left, the others to the right", () => {
    const cell = fc.string({ unit: fc.constantFrom("a", "7", "."), minLength: 1, maxLength: 9 });
    const rows = fc
      .integer({ min: 1, max: 5 })
      .chain((columns) =>
        fc.array(fc.array(cell, { minLength: columns, maxLength: columns }), { minLength: 1, maxLength: 6 }),
      );
    fc.assert(
      fc.property(rows, (cells) => {
        const lines = table(cells);
        expect(lines.map((line) => line.trim().split(/ +/))).toEqual(cells);
        if (cells[0]!.length > 1) expect(new Set(lines.map(({ length }) => length)).size).toBe(1);
        for (const line of lines) expect(line).toMatch(/^ {2}\S/);
      }),
    );
  });

  test("an empty last cell leaves no blanks behind", () => {
    expect(
      table(
        [
          ["a", "note"],
          ["bb", ""],
        ],
        "",
      ),
    ).toEqual(["a   note", "bb"]);
  });
});

describe("a plan", () => {
  const layout = { pp: 2, dp: 4, ep: 2, schedule: "dualpipe", microBatchRows: 1 } as const;
  const plan = planTraining({ ...run, layout });
  const report = { ...run, model: "nano", plan, isPublished: false };

  test("as JSON survives being written and read: no NaN, no infinity, nothing left out", () => {
    const json = planJson(report);
    expect(JSON.parse(JSON.stringify(json))).toEqual(json);
    expect(json).toMatchObject({ schema: 1, model: "nano", layout, microBatches: 16, published: null });
  });

  test("as text warns before anything else, and only where there is something to warn of", () => {
    const memoryBytes = 1e6;
    const cluster = { ...run.cluster, device: { ...run.cluster.device, memoryBytes } };
    const tight = { ...report, cluster, plan: planTraining({ ...run, cluster, layout }) };
    const warned = (lines: readonly string[]): number =>
      lines.findIndex((line) => line.startsWith("WARNING"));
    expect(warned(trainingText(report))).toBe(-1);
    expect(warned(trainingText(tight))).toBe(2);
  });
});

describe("a sweep", () => {
  const sweep = sweepLayouts(run);

  test("as text shows the first twenty of its rows and every rule that refused", () => {
    const lines = sweepText(sweep, 1.25);
    expect(sweep.rows.length).toBeGreaterThan(20);
    expect(lines[0]).toMatch(new RegExp(`^${sweep.rows.length} layouts .*; the first 20$`));
    expect(lines.filter((line) => line.startsWith("  pp="))).toHaveLength(20);
    expect(lines.slice(lines.indexOf("Refused") + 1)).toHaveLength(sweep.refused.length);
    expect(sweepText({ rows: sweep.rows.slice(0, 3), refused: [] }, 1)).toHaveLength(5);
  });

  test("as JSON has all rows in their order, and an example of each refusal", () => {
    const json = sweepJson(sweep, 1.25) as { rows: unknown[]; refused: { example: string }[] };
    expect(JSON.parse(JSON.stringify(json))).toEqual(json);
    expect(json.rows).toEqual(sweep.rows);
    expect(json.refused.map(({ example }) => example)).toEqual(sweep.refused.map((one) => one.problem.what));
  });
});
