import { describe, expect, test } from "vitest";
import { accountTimeline } from "./account.ts";
import type { AwaitedMessage, RankSpans, SentMessage, Span } from "./spans.ts";
import { withTravel } from "./travel.ts";

const SECOND = { latencySeconds: 0.5, bytesPerSecond: 10 };

function compute(start: number, end: number): Span {
  return { name: "work", category: "compute", start, end };
}

function wait(start: number, end: number, ...awaits: readonly AwaitedMessage[]): Span {
  return { name: "waits", category: "wait", start, end, awaits };
}

function from0(index: number, at: number): AwaitedMessage {
  return { from: 0, tag: 0, index, at };
}

function to1(at: number, bytes: number): SentMessage {
  return { to: 1, tag: 0, bytes, at };
}

/** Category, start and end of what rank 1 has after the join. */
function joined(sends: readonly SentMessage[], spans: readonly Span[], link?: typeof SECOND) {
  const linked = link === undefined ? {} : { link };
  const ranks: RankSpans[] = [
    { rank: 1, spans, ...linked },
    { rank: 0, spans: [], sends, ...linked },
  ];
  const rank1 = withTravel(ranks).find(({ rank }) => rank === 1)!;
  return rank1.spans.map(({ category, start, end }) => [category, start, end]);
}

describe("withTravel", () => {
  test("takes waiting for what has been sent for communication, and the rest for waiting", () => {
    expect(joined([to1(3, 10)], [wait(1, 4, from0(0, 0))])).toEqual([
      ["wait", 1, 3],
      ["communication", 3, 4],
    ]);
    expect(joined([to1(0.5, 10)], [wait(1, 4, from0(0, 0))])).toEqual([["communication", 1, 4]]);
    expect(joined([to1(9, 10)], [wait(1, 4, from0(0, 0))])).toEqual([["wait", 1, 4]]);
  });

  test("counts the last of several messages, each by its number", () => {
    const sends = [to1(0, 10), to1(2, 10), to1(3, 10)];
    expect(joined(sends, [wait(1, 4, from0(1, 0), from0(2, 0))])).toEqual([
      ["wait", 1, 3],
      ["communication", 3, 4],
    ]);
  });

  test("leaves a wait as it is whose message nobody is known to have sent", () => {
    expect(joined([], [wait(1, 4, from0(0, 0))])).toEqual([["wait", 1, 4]]);
    expect(joined([to1(0, 1)], [wait(1, 4)])).toEqual([["wait", 1, 4]]);
  });

  test("draws a message over a known link from when both sides had posted it, one after another", () => {
    // Each 20 bytes take the wire for 2 s and are there half a second later.
    const sends = [to1(0, 20), to1(0, 20)];
    expect(joined(sends, [wait(5, 5, from0(0, 1), from0(1, 0))], SECOND)).toEqual([
      ["communication", 1, 2.5],
      ["communication", 0, 4.5],
    ]);
  });

  test("so that the account tells what of it was hidden", () => {
    const spans = [compute(0, 3), wait(3, 4.5, from0(1, 0)), compute(4.5, 6)];
    const link = SECOND;
    const account = accountTimeline(
      withTravel([
        { rank: 0, spans: [compute(0, 6)], sends: [to1(0, 0), to1(2, 20)], link },
        { rank: 1, spans, link },
      ]),
    );
    expect(account.ranks[1]).toMatchObject({ compute: 4.5, communication: 2.5, exposedCommunication: 1.5 });
  });
});
