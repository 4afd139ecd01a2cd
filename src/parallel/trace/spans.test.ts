import { expect, test } from "vitest";
import { DataError } from "../../base/index.ts";
import { orderedRanks, type RankSpans, type Span } from "./spans.ts";

const span = (name: string, start: number, end: number): Span => ({ name, category: "compute", start, end });

test("ranks come by their number and spans by their start; the rest of a rank stays with it", () => {
  const sends = [{ to: 0, tag: 1, bytes: 4, at: 2 }];
  const given: readonly RankSpans[] = [
    { rank: 2, spans: [] },
    { rank: 0, spans: [span("late", 3, 4), span("early", -1, 5), span("empty", 2, 2)], sends },
  ];
  const [first, second] = orderedRanks(given);
  expect(first!.spans.map(({ name }) => name)).toEqual(["early", "empty", "late"]);
  expect([first!.rank, first!.sends, second!.rank]).toEqual([0, sends, 2]);
  expect(given[1]!.spans[0]!.name).toBe("late");
});

test("a rank that is there twice is refused with its number, wherever it stands", () => {
  const twice = [3, 1, 3].map((rank) => ({ rank, spans: [] }));
  expect(() => orderedRanks(twice)).toThrow(DataError);
  expect(() => orderedRanks(twice)).toThrow("the spans of rank 3 are there twice");
});

test.each([
  [2, 1],
  [Number.NaN, 1],
  [0, Number.NaN],
  [0, Number.POSITIVE_INFINITY],
])("a span from %d to %d is refused with its rank and its name", (start, end) => {
  const ranks = [{ rank: 4, spans: [span("fine", 0, 1), span('a "name"', start, end)] }];
  expect(() => orderedRanks(ranks)).toThrow(
    new RegExp(`rank 4: the span "a .{2}name.{2}" goes from ${start} to ${end}`),
  );
});
