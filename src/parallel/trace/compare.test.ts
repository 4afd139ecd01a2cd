import { describe, expect, test } from "vitest";
import type { Schedule } from "../schedule/plan.ts";
import { planSchedule } from "../schedule/planSchedule.ts";
import { simulate } from "../simulate/simulate.ts";
import { compareWithSimulation } from "./compare.ts";
import { simulatedSpans } from "./simulated.ts";
import type { RankSpans, Span } from "./spans.ts";

const chunks = { forward: 1, backward: 2.5, weight: 1, overlapped: 3 };

/** A simulated step as ranks would have recorded it. */
function recorded(schedule: Schedule, steps: number = 1): readonly RankSpans[] {
  const size = { ranks: 4, microBatches: 8 };
  const plan = planSchedule(schedule, size);
  const simulation = simulate(plan, { chunks });
  const later = (span: Span, step: number): Span => ({
    ...span,
    start: span.start + 100 * step,
    end: span.end + 100 * step,
  });
  return simulatedSpans(plan, simulation).map(({ rank, spans }) => ({
    rank,
    spans: [
      ...Array.from({ length: steps }, (_, step) => spans.map((span) => later(span, step))).flat(),
      { name: "update", category: "compute", start: 90, end: 91 },
    ],
    pipeline: { schedule, ...size },
  }));
}

describe("compareWithSimulation", () => {
  test.each(["1f1b", "zb", "dualpipe", "dualpipev"] as const)(
    "finds in a simulated step the bubbles that it was made with: %s",
    (schedule) => {
      const comparison = compareWithSimulation(recorded(schedule))!;
      const { makespan, bubbles } = simulate(comparison.plan, { chunks });
      expect(comparison.length).toBeCloseTo(makespan, 9);
      expect(comparison.simulatedLength).toBeCloseTo(makespan, 9);
      for (const [rank, bubble] of bubbles.entries()) {
        expect(comparison.bubbles[rank]).toBeCloseTo(bubble, 9);
        expect(comparison.simulatedBubbles[rank]).toBeCloseTo(bubble, 9);
      }
    },
  );

  test("takes the shortest of several steps", () => {
    const slow = (step: number, span: Span): Span => ({ ...span, start: span.start - 5 * (2 - step) });
    const ranks = recorded("zb", 3).map((rank) => ({
      ...rank,
      spans: rank.spans.map((span) => (span.name === "F0" ? slow(Math.floor(span.start / 100), span) : span)),
    }));
    const [found, wanted] = [compareWithSimulation(ranks)!, compareWithSimulation(recorded("zb"))!];
    expect(found.step).toBe(2);
    expect(found.length).toBeCloseTo(wanted.length, 9);
    expect(found.simulatedLength).toBeCloseTo(wanted.simulatedLength, 9);
  });

  test("adds up the spans into which waits have cut an action", () => {
    const [whole, cut] = [recorded("zb"), recorded("zb")].map((ranks, i) =>
      ranks.map((rank) => ({
        ...rank,
        spans: rank.spans.flatMap((span) => {
          const middle = (span.start + span.end) / 2;
          return i === 0
            ? [span]
            : [
                { ...span, end: middle },
                { ...span, start: middle },
              ];
        }),
      })),
    );
    const { simulatedLength } = compareWithSimulation(whole!)!;
    expect(compareWithSimulation(cut!)!.simulatedLength).toBeCloseTo(simulatedLength, 9);
  });

  test("takes what comes between chunks for lost, and chunks for as long as they took", () => {
    const late = recorded("1f1b").map((rank) => ({
      ...rank,
      spans: rank.spans.map((span) => ({ ...span, start: 2 * span.start, end: span.start + span.end })),
    }));
    const [measured, wanted] = [compareWithSimulation(late)!, compareWithSimulation(recorded("1f1b"))!];
    expect(measured.simulatedLength).toBeCloseTo(wanted.length, 9);
    expect(measured.length).toBeGreaterThan(1.5 * wanted.length);
  });

  test("says nothing of ranks without a pipeline, or with more than one", () => {
    const ranks = recorded("zb");
    expect(compareWithSimulation([])).toBeNull();
    expect(compareWithSimulation(ranks.map(({ rank, spans }) => ({ rank, spans })))).toBeNull();
    expect(compareWithSimulation(ranks.slice(0, 3))).toBeNull();
  });
});
