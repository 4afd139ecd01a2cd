/**
 * The spans of all ranks as one trace for chrome://tracing and ui.perfetto.dev: a process for each rank, a track for
 * each category. The format's times are in microseconds.
 */
import { orderedRanks, type RankSpans, type Span, type SpanCategory, type SpanChunk } from "./spans.ts";

export interface RankTraceEvent {
  readonly name: string;
  readonly ph: "X" | "M";
  readonly pid: number;
  readonly tid?: number;
  readonly ts?: number;
  readonly dur?: number;
  readonly cat?: SpanCategory;
  readonly args?: Readonly<Record<string, string | number>>;
}

export interface RankTrace {
  readonly displayTimeUnit: "ms";
  readonly traceEvents: readonly RankTraceEvent[];
}

const tracks: Readonly<Record<SpanCategory, number>> = { compute: 1, communication: 2, wait: 3 };

export function rankTrace(ranks: readonly RankSpans[]): RankTrace {
  return {
    displayTimeUnit: "ms",
    traceEvents: orderedRanks(ranks).flatMap(({ rank, spans }) => [
      { name: "process_name", ph: "M" as const, pid: rank, args: { name: `rank ${rank}` } },
      { name: "process_sort_index", ph: "M" as const, pid: rank, args: { sort_index: rank } },
      ...Object.entries(tracks).map(([name, tid]) => ({
        ...{ name: "thread_name", ph: "M" as const, pid: rank, tid },
        args: { name },
      })),
      ...spans.map((span) => spanEvent(rank, span)),
    ]),
  };
}

function spanEvent(rank: number, { name, category, start, end, chunks = [] }: Span): RankTraceEvent {
  return {
    ...{ name, ph: "X", pid: rank, tid: tracks[category], cat: category },
    ts: start * 1e6,
    dur: (end - start) * 1e6,
    ...(chunks.length === 0 ? {} : { args: Object.fromEntries(chunks.map(chunkArgument)) }),
  };
}

function chunkArgument({ pass, microBatch, stage, direction }: SpanChunk): [string, string] {
  return [pass, `micro-batch ${microBatch}, stage ${stage}, direction ${direction}`];
}
