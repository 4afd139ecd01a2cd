/**
 * Where each rank's time went. At every moment of the timeline a rank computes, or communicates with nothing to compute
 * (exposed communication), or does neither (bubble): the three add up to the timeline's length.
 */
import { type Interval, totalTime, union, without } from "./intervals.ts";
import { orderedRanks, type RankSpans, type SpanCategory } from "./spans.ts";

export interface RankAccount {
  readonly rank: number;
  readonly compute: number;
  /** All communication, whatever else went on. */
  readonly communication: number;
  readonly exposedCommunication: number;
  readonly bubble: number;
  /** When communication was exposed. */
  readonly exposed: readonly Interval[];
}

export interface TimelineAccount {
  /** First start and last end of anything on any rank. */
  readonly start: number;
  readonly end: number;
  readonly ranks: readonly RankAccount[];
}

export function accountTimeline(given: readonly RankSpans[]): TimelineAccount {
  const ranks = orderedRanks(given);
  const all = ranks.flatMap(({ spans }) => spans);
  if (all.length === 0) return { start: 0, end: 0, ranks: ranks.map((rank) => accountRank(rank, 0)) };
  const start = all.reduce((least, span) => Math.min(least, span.start), all[0]!.start);
  const end = all.reduce((most, span) => Math.max(most, span.end), all[0]!.end);
  return { start, end, ranks: ranks.map((rank) => accountRank(rank, end - start)) };
}

function accountRank({ rank, spans }: RankSpans, length: number): RankAccount {
  const when = (category: SpanCategory) => union(spans.filter((span) => span.category === category));
  const compute = when("compute");
  const communication = when("communication");
  const exposed = without(communication, compute);
  const [computed, exposedTime] = [totalTime(compute), totalTime(exposed)];
  return {
    rank,
    compute: computed,
    communication: totalTime(communication),
    exposedCommunication: exposedTime,
    // Sums of many lengths may miss the whole by a rounding.
    bubble: Math.max(0, length - computed - exposedTime),
    exposed,
  };
}
