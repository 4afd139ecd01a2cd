import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { scratchFolder } from "../../test/support/scratchFolder.ts";
import { RunError } from "../base/index.ts";
import { type RankSpans, readRankTrace } from "../parallel/index.ts";
import { keepTrace } from "./keepTrace.ts";

const ranks: readonly RankSpans[] = [0, 1, 10].map((rank) => ({
  rank,
  spans: [{ name: "update", category: "compute", start: rank, end: rank + 1 }],
}));

describe("keepTrace", () => {
  test("writes a file for each rank, which says what the rank did", async () => {
    const folder = join(await scratchFolder(), "run", "trace");
    await keepTrace(folder, ranks);
    expect((await readdir(folder)).sort()).toEqual(["rank-0.json", "rank-1.json", "rank-10.json"]);
    for (const spans of ranks) {
      const name = `rank-${spans.rank}.json`;
      expect(readRankTrace(await readFile(join(folder, name), "utf8"), name)).toEqual(spans);
    }
  });

  test("takes the place of an older trace of the same rank", async () => {
    const folder = await scratchFolder();
    await keepTrace(folder, ranks);
    await keepTrace(folder, [{ rank: 1, spans: [] }]);
    expect(readRankTrace(await readFile(join(folder, "rank-1.json"), "utf8"), "").spans).toEqual([]);
  });

  test("leaves nothing of an older trace of more ranks, and nothing else alone", async () => {
    const folder = await scratchFolder();
    await keepTrace(folder, ranks);
    await writeFile(join(folder, "mine.json"), "{}");
    await keepTrace(folder, ranks.slice(0, 1));
    expect((await readdir(folder)).sort()).toEqual(["mine.json", "rank-0.json"]);
  });

  test("says which file is in the way of its folder", async () => {
    const folder = join(await scratchFolder(), "trace");
    await writeFile(folder, "");
    await expect(keepTrace(folder, ranks)).rejects.toThrow(RunError);
    await expect(keepTrace(folder, ranks)).rejects.toThrow(/cannot write the trace: .*trace is in the way/);
  });
});
