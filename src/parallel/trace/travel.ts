/**
 * Tells waiting for a message that is under way from waiting for one that has not been sent: the first is
 * communication, the second is the pipeline's bubble. Only all ranks together know.
 *
 * Where the link is known, a message is drawn for as long as it was under way, hidden or not, from when both sides had
 * posted it. Else only the part that a rank waited for is known, and all of that is exposed.
 */
import type { HubLink } from "../../tensor/index.ts";
import { type AwaitedMessage, orderedRanks, type RankSpans, type Span } from "./spans.ts";

/** When a message went, and when the link had it there; null where the link is not known. */
interface Passage {
  readonly sent: number;
  readonly due: number | null;
}

export function withTravel(given: readonly RankSpans[]): readonly RankSpans[] {
  const ranks = orderedRanks(given);
  const passages = new Map(ranks.flatMap(passagesOf));
  return ranks.map((rank) => ({
    ...rank,
    spans: rank.spans.flatMap((span) =>
      span.category === "wait" ? divided(rank.rank, span, passages) : [span],
    ),
  }));
}

function keyOf(from: number, to: number, tag: number, index: number): string {
  return `${from} ${to} ${tag} ${index}`;
}

/** The n-th message of a sender, a receiver and a tag is the n-th that is received. */
function passagesOf({ rank, sends = [], link }: RankSpans): readonly [string, Passage][] {
  const counts = new Map<string, number>();
  const wires = new Map<number, number>();
  return sends.map(({ to, tag, bytes, at }) => {
    const channel = `${to} ${tag}`;
    const index = counts.get(channel) ?? 0;
    counts.set(channel, index + 1);
    const due = link === undefined ? null : arrival(wires, link, rank === to ? null : to, bytes, at);
    return [keyOf(rank, to, tag, index), { sent: at, due }];
  });
}

/** As the hub has it: a wire carries one message after another. */
function arrival(
  wires: Map<number, number>,
  { bytesPerSecond, latencySeconds }: HubLink,
  to: number | null,
  bytes: number,
  at: number,
): number {
  if (to === null) return at;
  const free = Math.max(at, wires.get(to) ?? at) + bytes / bytesPerSecond;
  wires.set(to, free);
  return free + latencySeconds;
}

/** A wait as the part before the last of its messages was sent, and what those of them were under way. */
function divided(rank: number, span: Span, passages: ReadonlyMap<string, Passage>): readonly Span[] {
  const { start, end, awaits = [] } = span;
  const found = awaits.map((message) => ({
    message,
    passage: passages.get(keyOf(message.from, rank, message.tag, message.index)),
  }));
  if (found.length === 0 || found.some(({ passage }) => passage === undefined)) return [span];
  const known = found as { readonly message: AwaitedMessage; readonly passage: Passage }[];
  // Until the last of them has been sent there is nothing that a faster link would change.
  const cut = Math.min(end, Math.max(start, ...known.map(({ passage }) => passage.sent)));
  const under = known.map(({ message: { from, at }, passage: { sent, due } }): Span => {
    const [begin, arrived] = due === null ? [cut, end] : [Math.max(sent, at), due];
    return { ...span, name: `from rank ${from}`, category: "communication", start: begin, end: arrived };
  });
  const isKnown = known.every(({ passage: { due } }) => due !== null);
  const parts = [{ ...span, end: cut }, ...(isKnown ? under : [{ ...under[0]!, name: span.name }])];
  return parts.filter((part) => part.end > part.start);
}
