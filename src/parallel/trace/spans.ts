/** What ranks did when: measured by an executor or made from a simulated plan; pages and traces are drawn from it. */
import { DataError } from "../../base/index.ts";
import type { Chunk } from "../schedule/plan.ts";

export type SpanCategory = "compute" | "communication" | "wait";

/** What part of a micro-batch's work a span is. */
export interface SpanChunk extends Chunk {
  readonly pass: "forward" | "backward" | "backwardInput" | "backwardWeight";
  readonly stage: number;
}

export interface Span {
  readonly name: string;
  readonly category: SpanCategory;
  /** Seconds since a zero that all ranks share. */
  readonly start: number;
  readonly end: number;
  /** One, two for an overlapped pair, none for work that belongs to the whole step. */
  readonly chunks?: readonly SpanChunk[];
}

export interface RankSpans {
  readonly rank: number;
  readonly spans: readonly Span[];
}

/**
 * @returns the ranks in order, each with its spans by their start
 * @throws DataError if a rank is there twice, or a span has no place in time
 */
export function orderedRanks(ranks: readonly RankSpans[]): readonly RankSpans[] {
  const ordered = ranks.toSorted((a, b) => a.rank - b.rank);
  for (const [index, { rank, spans }] of ordered.entries()) {
    if (rank === ordered[index + 1]?.rank) {
      throw new DataError(`the spans of rank ${rank} are there twice`, {
        why: "one timeline shows each rank of one run",
        fix: "give the spans of one run",
        fields: { rank },
      });
    }
    for (const span of spans) requireTimes(rank, span);
  }
  return ordered.map(({ rank, spans }) => ({ rank, spans: spans.toSorted((a, b) => a.start - b.start) }));
}

function requireTimes(rank: number, { name, start, end }: Span): void {
  if (Number.isFinite(start) && Number.isFinite(end) && start <= end) return;
  throw new DataError(`rank ${rank}: the span ${JSON.stringify(name)} goes from ${start} to ${end}`, {
    why: "a span starts before it ends, at finite times",
    fix: "record it again; a file that was cut off can be left out",
    fields: { rank, name, start, end },
  });
}
