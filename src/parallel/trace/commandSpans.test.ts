import { describe, expect, test } from "vitest";
import type { TracedCommand, TracedMessage } from "../../tensor/index.ts";
import { plan1F1B } from "../schedule/oneForwardOneBackward.ts";
import { CommandSpans } from "./commandSpans.ts";
import { actionMark, readMark } from "./marks.ts";

const plain = { label: "", flops: 0, bytes: 0 };

/** Times in microseconds. */
function compute(mark: string, begin: number, end: number): TracedCommand {
  return { ...plain, op: "matmul", mark, message: null, begin: begin * 1000, end: end * 1000 };
}

function message(
  mark: string,
  part: TracedMessage["part"],
  [ticket, peer, tag]: readonly [number, number | null, number | null],
  [begin, end]: readonly [number, number],
): TracedCommand {
  return { ...compute(mark, begin, end), op: part, message: { part, ticket, peer, tag, bytes: 12 } };
}

const read = readMark(plan1F1B({ ranks: 2, microBatches: 2 }), 1);

function spansOf(...commands: readonly TracedCommand[]): CommandSpans {
  const spans = new CommandSpans(read, 1);
  spans.add(commands);
  return spans;
}

/** Rounded to whole microseconds since the first second. */
function times(spans: CommandSpans): readonly (readonly [string, number, number])[] {
  const micro = (seconds: number): number => Math.round((seconds - 1) * 1e6);
  return spans.spans.map(({ category, start, end }) => [category, micro(start), micro(end)]);
}

describe("CommandSpans", () => {
  test("makes one span of what an action computes without a break, with its chunk", () => {
    const action = actionMark(1);
    const spans = spansOf(compute(action, 0, 10), compute(action, 11, 30), compute(action, 29, 31));
    expect(times(spans)).toEqual([["compute", 0, 31]]);
    expect(spans.spans[0]).toMatchObject({
      name: "B0",
      chunks: [{ pass: "backward", stage: 1, module: 0, direction: 0, microBatch: 0 }],
    });
  });

  test("begins another where the queue had nothing to do, and where the mark changes", () => {
    const spans = spansOf(
      compute("a", 0, 10),
      compute("a", 40, 50),
      compute("b", 50, 60),
      compute("", 60, 70),
    );
    expect(times(spans).map(([, start]) => start)).toEqual([0, 40, 50, 60]);
    expect(spans.spans.map(({ name, chunks }) => [name, chunks])).toEqual([
      ["a", undefined],
      ["a", undefined],
      ["b", undefined],
      ["other work", undefined],
    ]);
  });

  test("makes of an await a wait for what was posted under its ticket, and of posts nothing", () => {
    const action = actionMark(0);
    const spans = spansOf(
      message(action, "receive", [7, 0, 2], [0, 1]),
      message(action, "receive", [7, 0, 2], [1, 2]),
      message(action, "send", [8, 0, 4], [2, 3]),
      compute(action, 3, 5),
      message(action, "await", [7, null, null], [5, 20]),
      compute(action, 20, 25),
      message(action, "await", [8, null, null], [25, 26]),
      // The ticket is free again, and the count of the messages goes on.
      message(action, "receive", [7, 0, 2], [26, 27]),
      message(action, "await", [7, null, null], [27, 28]),
    );
    expect(times(spans)).toEqual([
      ["compute", 3, 5],
      ["wait", 5, 20],
      ["compute", 20, 25],
      ["wait", 25, 26],
      ["wait", 27, 28],
    ]);
    expect(spans.spans[1]!.awaits!.map(({ from, tag, index }) => [from, tag, index])).toEqual([
      [0, 2, 0],
      [0, 2, 1],
    ]);
    expect(spans.spans[3]!.awaits).toEqual([]);
    expect(spans.spans[4]!.awaits!.map(({ index }) => index)).toEqual([2]);
    expect(spans.sends).toMatchObject([{ to: 0, tag: 4, bytes: 12 }]);
    expect(spans.spans[1]!.name).toBe("F0 waits for rank 0");
  });

  test("remembers across takes what is posted and how many messages there were", () => {
    const spans = spansOf(message("", "receive", [1, 0, 0], [0, 1]));
    spans.add([message("", "await", [1, null, null], [2, 3])]);
    expect(spans.spans[0]!.awaits).toHaveLength(1);
  });
});
