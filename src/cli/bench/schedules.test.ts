import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { nativeIsMissing } from "../../../test/support/native.ts";
import { scratchFolder } from "../../../test/support/scratchFolder.ts";
import { ConfigError, UsageError } from "../../base/index.ts";
import { benchOverlap } from "./overlap.ts";
import { mean, shortest } from "./pacedRanks.ts";
import { type BenchRow, rowText } from "./row.ts";
import { benchSchedules, type ScheduleFlags } from "./schedules.ts";

const chunks = { forward: 0.004, backward: 0.008, weight: 0.004, overlapped: 0.012 };

async function rowsOf(rows: AsyncIterable<BenchRow>): Promise<readonly BenchRow[]> {
  const all: BenchRow[] = [];
  for await (const row of rows) all.push(row);
  return all;
}

async function paceFile(content: unknown): Promise<string> {
  const file = join(await scratchFolder(), "pace.json");
  await writeFile(file, typeof content === "string" ? content : JSON.stringify(content));
  return file;
}

async function measure(flags: Partial<ScheduleFlags>): Promise<readonly BenchRow[]> {
  return rowsOf(benchSchedules({ microBatches: 4, rounds: 1, ranks: 2, ...flags }));
}

describe.skipIf(nativeIsMissing)("bench schedules", () => {
  test("has a row for each schedule, with the bubble that the costs give and the one that was measured", async () => {
    const rows = await measure({ pace: await paceFile({ chunks }) });
    expect(rows.map(({ name }) => name)).toEqual(
      ["1f1b", "zb", "dualpipe", "dualpipev"].map((schedule) => `${schedule}, 2 ranks, 4 micro-batches`),
    );
    for (const row of rows) {
      expect(row["carrier"]).toBe("in one process");
      expect(Number(row["milliseconds"])).toBeGreaterThan(Number(row["simulatedMilliseconds"]) - 1);
      const [measured, simulated] = [row["bubbleMilliseconds"], row["simulatedBubbleMilliseconds"]];
      if (Math.abs(Number(simulated)) < 1e-6) expect(row["bubbleRatio"]).toBeNull();
      else expect(row["bubbleRatio"]).toBeCloseTo(Number(measured) / Number(simulated), 9);
      expect(rowText(row)).toContain(`simulatedMilliseconds`);
    }
    // (PP - 1)(F + B): 12 ms.
    expect(rows[0]!["simulatedBubbleMilliseconds"]).toBeCloseTo(12, 9);
  });

  test("measures one schedule alone, and keeps the spans of its best round", async () => {
    const trace = join(await scratchFolder(), "kept");
    const rows = await measure({ pace: await paceFile({ chunks }), schedule: "zb", rounds: 2, trace });
    expect(rows).toHaveLength(1);
    expect(await readdir(trace)).toEqual(["zb-2"]);
    expect((await readdir(join(trace, "zb-2"))).sort()).toEqual(["rank-0.json", "rank-1.json"]);
  });

  test.each([
    ["no JSON", "{", UsageError],
    ["no chunks", { forward: 1 }, UsageError],
    ["a weight part longer than its whole", { chunks: { ...chunks, weight: 1 } }, ConfigError],
    ["a negative time", { chunks: { ...chunks, forward: -1 } }, UsageError],
    ["a time that is no number", { chunks: { ...chunks, weight: "x" } }, UsageError],
    ["nothing for chunks", { chunks: null }, UsageError],
  ])("refuses a pace file with %s", async (_, content, kind) => {
    await expect(measure({ pace: await paceFile(content) })).rejects.toThrow(kind);
  });

  test("says which file of times is not there", async () => {
    const pace = join(await scratchFolder(), "missing.json");
    await expect(measure({ pace })).rejects.toThrow(/missing\.json cannot be read/);
  });

  test("refuses numbers of which there is no plan", async () => {
    await expect(measure({ schedule: "dualpipe", ranks: 3 })).rejects.toThrow(ConfigError);
  });
});

describe.skipIf(nativeIsMissing)("bench overlap", () => {
  test("keeps a trace of either form, of which the interleaved hides more", { timeout: 60_000 }, async () => {
    const trace = await scratchFolder();
    const rows = await rowsOf(benchOverlap({ ranks: 2, microBatches: 4, rounds: 1, trace }));
    expect(rows.map(({ name }) => name)).toEqual(
      ["unit", "interleaved"].map((pairs) => `dualpipe, 2 x 2 ranks, pairs ${pairs}`),
    );
    const [unit, interleaved] = rows.map((row) => Number(row["hiddenInPairsShare"]));
    expect(unit).toBeLessThan(0.05);
    expect(interleaved).toBeGreaterThan(0.5);
    expect((await readdir(trace)).sort()).toEqual(["interleaved", "unit"]);
    expect(await readdir(join(trace, "unit"))).toHaveLength(4);
  });
});

describe("rounds", () => {
  test("the shortest counts, and means are means", () => {
    const round = (end: number) => ({ account: { start: 1, end, ranks: [] } });
    expect(shortest([round(5), round(3), round(4)])).toEqual(round(3));
    expect(mean([1, 2, 6])).toBe(3);
  });
});
