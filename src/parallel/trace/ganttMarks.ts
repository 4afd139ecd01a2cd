/** Spans as the rectangles that a Gantt chart draws for them. Pure: times in, coordinates out. */
import type { Interval } from "./intervals.ts";
import type { Span, SpanChunk } from "./spans.ts";
import { type TimeUnit, timeText } from "./timeText.ts";

/** What part of a lane's height a mark fills: a pair's forward lies over its backward. */
export type MarkPart = "whole" | "upper" | "lower";

export interface Mark {
  readonly lane: "compute" | "communication";
  readonly part: MarkPart;
  readonly x: number;
  readonly width: number;
  /** Class of its colour. */
  readonly tone: string;
  readonly label: string;
  /** Shown when the pointer rests on it. */
  readonly title: string;
}

export interface MarkScale {
  /** The time at x = 0, and x per second. */
  readonly start: number;
  readonly perSecond: number;
  readonly unit: TimeUnit;
  /** Marks narrower than this are joined to a neighbour of the same tone; 0 joins none. */
  readonly finest: number;
}

const tones = { forward: "f", backward: "b", backwardInput: "i", backwardWeight: "w" } as const;

const joinedTitle = "spans too fine to be drawn apart";

export function spanMarks(spans: readonly Span[], scale: MarkScale): readonly Mark[] {
  return joinFine(
    spans.flatMap((span) => marksOf(span, scale)),
    scale.finest,
  );
}

/** Communication that nothing hides, drawn over the strip of all communication. */
export function exposedMarks(
  exposed: readonly Interval[],
  { start, perSecond, finest }: MarkScale,
): readonly Mark[] {
  const marks = exposed.map((one) => ({
    ...{ lane: "communication" as const, part: "whole" as const, tone: "exposed", label: "", title: "" },
    ...{ x: (one.start - start) * perSecond, width: (one.end - one.start) * perSecond },
  }));
  return joinFine(marks, finest);
}

function joinFine(all: readonly Mark[], finest: number): readonly Mark[] {
  const marks: Mark[] = [];
  const lastOf = new Map<string, number>();
  for (const mark of all) {
    const key = `${mark.lane} ${mark.part}`;
    const lastIndex = lastOf.get(key);
    const last = lastIndex === undefined ? undefined : marks[lastIndex]!;
    if (last !== undefined && isTooFine(last, mark, finest)) {
      const width = Math.max(last.width, mark.x + mark.width - last.x);
      marks[lastIndex!] = { ...last, width, label: "", title: joinedTitle };
      continue;
    }
    lastOf.set(key, marks.length);
    marks.push(mark);
  }
  return marks;
}

function isTooFine(last: Mark, mark: Mark, finest: number): boolean {
  return mark.width < finest && mark.tone === last.tone && mark.x - (last.x + last.width) < finest;
}

function marksOf(span: Span, { start, perSecond, unit }: MarkScale): readonly Mark[] {
  const place = { x: (span.start - start) * perSecond, width: (span.end - span.start) * perSecond };
  const title = titleOf(span, start, unit);
  if (span.category !== "compute") {
    const isWait = span.category === "wait";
    const lane = isWait ? "compute" : "communication";
    return [{ lane, part: "whole", ...place, tone: isWait ? "wait" : "comm", label: "", title }];
  }
  const chunks = span.chunks ?? [];
  if (chunks.length === 0) {
    return [{ lane: "compute", part: "whole", ...place, tone: "other", label: span.name, title }];
  }
  return chunks.slice(0, 2).map((chunk, index) => ({
    lane: "compute",
    part: chunks.length === 1 ? "whole" : index === 0 ? "upper" : "lower",
    ...place,
    tone: toneOf(chunk),
    label: String(chunk.microBatch),
    title,
  }));
}

/** The two ways through the pipeline have shades of their own: DualPipe's directions, DualPipeV's halves. */
function toneOf({ pass, module }: SpanChunk): string {
  return `${tones[pass]}${module}`;
}

function titleOf({ name, chunks = [], start, end }: Span, zero: number, unit: TimeUnit): string {
  const passes = {
    forward: "forward",
    backward: "backward",
    backwardInput: "input part",
    backwardWeight: "weight part",
  };
  return [
    name,
    ...chunks.map(
      ({ pass, microBatch, stage }) => `${passes[pass]} of micro-batch ${microBatch}, stage ${stage}`,
    ),
    `${timeText(start - zero, unit)} to ${timeText(end - zero, unit)}: ${timeText(end - start, unit)}`,
  ].join("\n");
}
