/** Whatever ranks send and await, joining their traces neither adds nor loses time. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { accountTimeline } from "./account.ts";
import type { RankSpans, SentMessage, Span } from "./spans.ts";
import { withTravel } from "./travel.ts";

const RANKS = 3;

interface Message {
  readonly from: number;
  readonly to: number;
  readonly tag: number;
  readonly bytes: number;
  /** When it is sent, posted at the receiver, awaited, and when the wait is over. */
  readonly at: readonly [number, number, number, number];
}

const rank = fc.nat(RANKS - 1);
const time = fc.integer({ min: 0, max: 100 });
const message: fc.Arbitrary<Message> = fc.record({
  from: rank,
  to: rank,
  tag: fc.nat(1),
  bytes: fc.nat(50),
  at: fc.tuple(time, time, time, fc.nat(20)).map(([sent, posted, awaited, length]) => {
    const start = Math.max(posted, awaited);
    // No wait is over before its message went.
    return [sent, posted, start, Math.max(start + length, sent)] as const;
  }),
});

/** Traces in which each message is awaited by itself; messages of one channel in the order in which they are sent. */
function tracesOf(messages: readonly Message[], link: RankSpans["link"]): readonly RankSpans[] {
  const counts = new Map<string, number>();
  const sends = Array.from({ length: RANKS }, (): SentMessage[] => []);
  const spans = Array.from({ length: RANKS }, (): Span[] => []);
  for (const { from, to, tag, bytes, at } of messages.toSorted((a, b) => a.at[0] - b.at[0])) {
    const channel = `${from} ${to} ${tag}`;
    const index = counts.get(channel) ?? 0;
    counts.set(channel, index + 1);
    const [sent, posted, start, end] = at;
    sends[from]!.push({ to, tag, bytes, at: sent });
    const awaits = [{ from, tag, index, at: posted }];
    spans[to]!.push({ name: "waits", category: "wait", start, end, awaits });
  }
  return spans.map((own, i) => ({
    rank: i,
    spans: own,
    sends: sends[i]!,
    ...(link === undefined ? {} : { link }),
  }));
}

function timeOf(spans: readonly Span[], category: Span["category"]): number {
  return spans
    .filter((span) => span.category === category)
    .reduce((sum, { start, end }) => sum + end - start, 0);
}

test("without a link, what was waited is waiting or communication, cut where the message was sent", () => {
  fc.assert(
    fc.property(fc.array(message, { maxLength: 12 }), (messages) => {
      const traces = tracesOf(messages, undefined);
      for (const [i, { spans }] of withTravel(traces).entries()) {
        const before = timeOf(traces[i]!.spans, "wait");
        expect(timeOf(spans, "wait") + timeOf(spans, "communication")).toBe(before);
        const expected = messages
          .filter(({ to }) => to === i)
          .reduce((sum, { at: [sent, , start, end] }) => sum + end - Math.max(start, sent), 0);
        expect(timeOf(spans, "communication")).toBe(expected);
      }
    }),
  );
});

test("over a link, no message is under way before both have posted it, nor shorter than the wire needs", () => {
  const link = { latencySeconds: 2, bytesPerSecond: 10 };
  fc.assert(
    fc.property(fc.array(message, { maxLength: 12 }), (messages) => {
      const joined = withTravel(tracesOf(messages, link));
      for (const [i, { spans }] of joined.entries()) {
        const own = messages.filter(({ to }) => to === i);
        const travels = spans.filter(({ category }) => category === "communication");
        expect(travels.length).toBeLessThanOrEqual(own.length);
        for (const { start, end, name } of travels) {
          const from = own.filter((one) => name === `from rank ${one.from}`);
          expect(from.some(({ at: [sent, posted] }) => start === Math.max(sent, posted))).toBe(true);
          expect(end).toBeGreaterThan(start);
        }
        // One wire from each rank: what it carries takes at least its bytes' time from the first that was sent.
        for (let sender = 0; sender < RANKS; sender++) {
          const carried = own.filter(({ from }) => from === sender && sender !== i);
          const last = Math.max(
            ...travels.filter(({ name }) => name === `from rank ${sender}`).map(({ end }) => end),
          );
          if (!Number.isFinite(last) || carried.length === 0) continue;
          const first = Math.min(...carried.map(({ at: [sent] }) => sent));
          const bytes = carried.reduce((sum, one) => sum + one.bytes, 0);
          const allAreDrawn =
            travels.filter(({ name }) => name === `from rank ${sender}`).length === carried.length;
          if (allAreDrawn) expect(last).toBeGreaterThanOrEqual(first + bytes / link.bytesPerSecond);
        }
      }
    }),
  );
});

test("computing, exposed communication and bubble of joined traces add up to the timeline", () => {
  fc.assert(
    fc.property(fc.array(message, { minLength: 1, maxLength: 12 }), fc.boolean(), (messages, isLinked) => {
      const link = isLinked ? { latencySeconds: 1, bytesPerSecond: 5 } : undefined;
      const account = accountTimeline(withTravel(tracesOf(messages, link)));
      for (const { compute, exposedCommunication, bubble, communication } of account.ranks) {
        expect(compute + exposedCommunication + bubble).toBeCloseTo(account.end - account.start, 9);
        expect(exposedCommunication).toBeLessThanOrEqual(communication + 1e-9);
      }
    }),
  );
});
