import { describe, expect, test } from "vitest";
import { exposedMarks, type MarkScale, spanMarks } from "./ganttMarks.ts";
import type { Span, SpanChunk } from "./spans.ts";
import { timeUnit } from "./timeText.ts";

const scale: MarkScale = { start: 10, perSecond: 100, unit: timeUnit(5), finest: 0 };
const chunk: SpanChunk = { pass: "forward", stage: 3, module: 1, direction: 0, microBatch: 7 };
const other: Span = { name: "optimizer", category: "compute", start: 11, end: 13.5 };

describe("spanMarks", () => {
  test("puts a span where its time is, and tells it since the first moment of the timeline", () => {
    expect(spanMarks([other], scale)).toEqual([
      {
        ...{ lane: "compute", part: "whole", x: 100, width: 250, tone: "other", label: "optimizer" },
        title: "optimizer\n1 s to 3.5 s: 2.5 s",
      },
    ]);
  });

  test("gives a chunk the tone of its pass and module, and a pair an upper and a lower half", () => {
    const back: SpanChunk = { ...chunk, pass: "backward", module: 0, microBatch: 2 };
    const marks = spanMarks([{ ...other, name: "F<7&B>2", chunks: [chunk, back] }], scale);
    expect(marks.map(({ part, tone, label }) => [part, tone, label])).toEqual([
      ["upper", "f1", "7"],
      ["lower", "b0", "2"],
    ]);
    expect(marks[0]!.title.split("\n").slice(0, 3)).toEqual([
      "F<7&B>2",
      "forward of micro-batch 7, stage 3",
      "backward of micro-batch 2, stage 3",
    ]);
    const halves = (["backwardInput", "backwardWeight"] as const).map((pass) => ({ ...chunk, pass }));
    const tones = halves.flatMap((one) => spanMarks([{ ...other, chunks: [one] }], scale));
    expect(tones.map(({ part, tone }) => [part, tone])).toEqual([
      ["whole", "i1"],
      ["whole", "w1"],
    ]);
  });

  test("draws waits where the rank computes and communication in a lane of its own, without labels", () => {
    const spans = (["wait", "communication"] as const).map((category) => ({ ...other, category }));
    expect(spanMarks(spans, scale).map(({ lane, tone, label }) => [lane, tone, label])).toEqual([
      ["compute", "wait", ""],
      ["communication", "comm", ""],
    ]);
  });
});

describe("marks that are too fine", () => {
  const fine = (start: number, category: Span["category"] = "compute"): Span => ({
    ...{ ...other, category },
    ...{ start, end: start + 0.01 },
  });

  test("become one with a neighbour of their tone, from its start to their end, which says so", () => {
    const marks = spanMarks([fine(10), fine(10.02), fine(10.04)], { ...scale, finest: 2 });
    expect(marks).toHaveLength(1);
    expect(marks[0]).toMatchObject({ x: 0, label: "", title: "spans too fine to be drawn apart" });
    expect(marks[0]!.width).toBeCloseTo(5);
  });

  test("stay alone where the neighbour is of another tone or lane, or too far away, or where none is too fine", () => {
    const finest = { ...scale, finest: 2 };
    expect(spanMarks([fine(10), fine(10.01, "wait")], finest)).toHaveLength(2);
    expect(spanMarks([fine(10), fine(10.01, "communication")], finest)).toHaveLength(2);
    expect(spanMarks([fine(10), fine(10.05)], finest)).toHaveLength(2);
    expect(spanMarks([fine(10), fine(10.01)], scale)).toHaveLength(2);
  });

  test("are joined across a mark of another lane, and exposed stretches among themselves", () => {
    const marks = spanMarks([fine(10), fine(10.01, "communication"), fine(10.02)], { ...scale, finest: 2 });
    expect(marks.map(({ lane }) => lane)).toEqual(["compute", "communication"]);
    const stretches = [
      { start: 10, end: 12 },
      { start: 12.005, end: 12.01 },
      { start: 14, end: 14.5 },
    ];
    const exposed = exposedMarks(stretches, { ...scale, finest: 1 });
    expect(exposed.map(({ tone, x }) => [tone, Math.round(x)])).toEqual([
      ["exposed", 0],
      ["exposed", 400],
    ]);
    expect(exposed[0]!.width).toBeCloseTo(201);
  });
});
