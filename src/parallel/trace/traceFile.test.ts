import { describe, expect, test } from "vitest";
import { DataError } from "../../base/index.ts";
import type { RankSpans } from "./spans.ts";
import { readRankTrace, writeRankTrace } from "./traceFile.ts";

const full: RankSpans = {
  rank: 3,
  spans: [
    {
      ...{ name: "F0", category: "compute", start: 0.25, end: 1 },
      chunks: [{ pass: "forward", stage: 1, module: 0, direction: 1, microBatch: 7 }],
    },
    {
      ...{ name: "waits", category: "wait", start: 1, end: 1 },
      awaits: [{ from: 2, tag: 5, index: 0, at: 0.5 }],
    },
  ],
  sends: [{ to: 2, tag: 5, bytes: 64, at: 0.125 }],
  pipeline: { schedule: "zb", ranks: 4, microBatches: 20 },
  link: { latencySeconds: 0, bytesPerSecond: 1e9 },
};

describe("a rank's trace as a file", () => {
  test.each([full, { rank: 0, spans: [] }])("is read as it was written: rank $rank", (spans) => {
    expect(readRankTrace(writeRankTrace(spans), "rank-3.json")).toEqual(spans);
  });

  test.each([
    ["cut off", writeRankTrace(full).slice(0, 100), "the whole"],
    ["of another version", writeRankTrace(full).replace('"schema":1', '"schema":9'), "schema"],
    ["with a span of no category", writeRankTrace(full).replace('"compute"', '"sleep"'), "spans.0.category"],
  ])("that is %s names itself and the place", (_, text, place) => {
    const read = () => readRankTrace(text, "runs/a/trace/rank-3.json");
    expect(read).toThrow(DataError);
    expect(read).toThrow(/runs\/a\/trace\/rank-3.json/);
    try {
      read();
    } catch (error) {
      expect((error as DataError).why).toContain(place);
    }
  });
});
