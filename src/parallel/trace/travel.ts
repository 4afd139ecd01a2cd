/**
 * Tells waiting for a message that is under way from waiting for one that has not been sent: the first is
 * communication, the second is the pipeline's bubble. Only all ranks together know.
 *
 * Where the link is known, its messages are drawn for as long as they travelled, hidden or not; else only the part
 * that a rank waited for is known, and every bit of it is exposed.
 */
import { orderedRanks, type RankSpans, type SentMessage, type Span } from "./spans.ts";

export function withTravel(given: readonly RankSpans[]): readonly RankSpans[] {
  const ranks = orderedRanks(given);
  const sent = new Map(ranks.flatMap(({ rank, sends = [] }) => numbered(rank, sends)));
  return ranks.map((rank) => {
    const waits = rank.spans.flatMap((span) => cutAtSend(rank, span, sent));
    return { ...rank, spans: [...waits, ...travels(rank.rank, ranks)] };
  });
}

function keyOf(from: number, to: number, tag: number, index: number): string {
  return `${from} ${to} ${tag} ${index}`;
}

/** The n-th message of a sender, a receiver and a tag is the n-th that is received. */
function numbered(from: number, sends: readonly SentMessage[]): readonly [string, SentMessage][] {
  const counts = new Map<string, number>();
  return sends.map((message) => {
    const channel = `${message.to} ${message.tag}`;
    const index = counts.get(channel) ?? 0;
    counts.set(channel, index + 1);
    return [keyOf(from, message.to, message.tag, index), message];
  });
}

function cutAtSend(
  { rank, link }: RankSpans,
  span: Span,
  sent: ReadonlyMap<string, SentMessage>,
): readonly Span[] {
  const { category, start, end, awaits = [] } = span;
  if (category !== "wait" || awaits.length === 0) return [span];
  const times = awaits.map(({ from, tag, index }) => sent.get(keyOf(from, rank, tag, index))?.at);
  if (times.some((time) => time === undefined)) return [span];
  // Until the last of them has been sent there is nothing that a faster link would change.
  const cut = Math.min(end, Math.max(start, ...(times as number[])));
  const parts: readonly Span[] = [
    { ...span, end: cut },
    { ...span, category: "communication", start: cut },
  ];
  return parts.filter((part) => part.end > part.start && (part.category === "wait" || link === undefined));
}

/** What came to a rank over a link that is known, each for its time on the way. */
function travels(rank: number, ranks: readonly RankSpans[]): readonly Span[] {
  return ranks.flatMap(({ rank: from, sends = [], link }) => {
    if (link === undefined || from === rank) return [];
    let free = Number.NEGATIVE_INFINITY;
    return sends
      .filter(({ to }) => to === rank)
      .map(({ at, bytes }): Span => {
        free = Math.max(at, free) + bytes / link.bytesPerSecond;
        return {
          name: `from rank ${from}`,
          category: "communication",
          start: at,
          end: free + link.latencySeconds,
        };
      });
  });
}
