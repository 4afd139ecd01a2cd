import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { DataError } from "../../base/index.ts";
import { planDualPipe } from "../schedule/dualPipe.ts";
import { simulate } from "../simulate/simulate.ts";
import { accountTimeline } from "./account.ts";
import { totalTime, union, without } from "./intervals.ts";
import { simulatedSpans } from "./simulated.ts";
import type { RankSpans, Span, SpanCategory } from "./spans.ts";

function span(category: SpanCategory, start: number, end: number): Span {
  return { name: category, category, start, end };
}

/** Stretches on a grid of whole numbers, so that a set of grid cells is a second way to every answer. */
const intervals = fc.array(
  fc.tuple(fc.integer({ min: 0, max: 30 }), fc.integer({ min: 0, max: 6 })).map(([start, length]) => ({
    start,
    end: start + length,
  })),
  { maxLength: 12 },
);
const cells = (list: readonly { readonly start: number; readonly end: number }[]) =>
  new Set(list.flatMap(({ start, end }) => Array.from({ length: end - start }, (_, index) => start + index)));

describe("union and without", () => {
  test("are those of the sets of moments", () => {
    fc.assert(
      fc.property(intervals, intervals, (a, b) => {
        const left = without(union(a), union(b));
        expect([...cells(left)].sort((x, y) => x - y)).toEqual(
          [...cells(a).difference(cells(b))].sort((x, y) => x - y),
        );
        expect(totalTime(union(a))).toBe(cells(a).size);
        expect(totalTime(left)).toBe(cells(a).difference(cells(b)).size);
      }),
      { numRuns: 1000 },
    );
  });

  test("join what touches", () => {
    expect(
      union([
        { start: 2, end: 3 },
        { start: 0, end: 1 },
        { start: 1, end: 2 },
        { start: 5, end: 5 },
      ]),
    ).toEqual([{ start: 0, end: 3 }]);
  });
});

describe("accountTimeline", () => {
  test("tells computing, exposed communication and bubble apart", () => {
    const ranks: RankSpans[] = [
      {
        rank: 1,
        spans: [
          span("communication", 13, 16),
          span("compute", 12, 14),
          span("compute", 13, 15),
          span("wait", 16, 19),
        ],
      },
      { rank: 0, spans: [span("compute", 10, 20)] },
    ];
    expect(accountTimeline(ranks)).toEqual({
      start: 10,
      end: 20,
      ranks: [
        { rank: 0, compute: 10, communication: 0, exposedCommunication: 0, bubble: 0, exposed: [] },
        {
          rank: 1,
          compute: 3,
          communication: 3,
          exposedCommunication: 1,
          // Before, after, and the wait: a wait is not work.
          bubble: 6,
          exposed: [{ start: 15, end: 16 }],
        },
      ],
    });
  });

  test("adds up to the timeline on every rank", () => {
    const category = fc.constantFrom<SpanCategory>("compute", "communication", "wait");
    const spans = intervals.chain((list) =>
      fc.tuple(...list.map(({ start, end }) => category.map((one) => span(one, start, end)))),
    );
    fc.assert(
      fc.property(spans, spans, (first, second) => {
        const account = accountTimeline([
          { rank: 0, spans: first },
          { rank: 1, spans: second },
        ]);
        for (const { compute, exposedCommunication, bubble } of account.ranks) {
          expect(compute + exposedCommunication + bubble).toBe(account.end - account.start);
        }
      }),
      { numRuns: 300 },
    );
  });

  test("finds a simulated plan's bubbles", () => {
    const plan = planDualPipe({ ranks: 8, microBatches: 20 });
    const simulation = simulate(plan, { chunks: { forward: 1, backward: 3, weight: 1, overlapped: 3.5 } });
    const { ranks, end } = accountTimeline(simulatedSpans(plan, simulation));
    expect(end).toBe(simulation.makespan);
    expect(ranks.map(({ bubble }) => bubble)).toEqual(simulation.bubbles);
  });

  test("is empty without spans", () => {
    expect(accountTimeline([{ rank: 0, spans: [] }])).toMatchObject({
      start: 0,
      end: 0,
      ranks: [{ bubble: 0 }],
    });
    expect(accountTimeline([])).toEqual({ start: 0, end: 0, ranks: [] });
  });

  test("refuses a rank that is there twice, and spans without a place in time", () => {
    const twice = [0, 0].map((rank) => ({ rank, spans: [] }));
    expect(() => accountTimeline(twice)).toThrow(DataError);
    expect(() => accountTimeline(twice)).toThrow(/rank 0 are there twice/);
    const backwards = [{ rank: 3, spans: [span("wait", 2, 1)] }];
    expect(() => accountTimeline(backwards)).toThrow(/rank 3: the span "wait" goes from 2 to 1/);
    expect(() => accountTimeline([{ rank: 0, spans: [span("wait", 0, Number.NaN)] }])).toThrow(DataError);
  });
});
