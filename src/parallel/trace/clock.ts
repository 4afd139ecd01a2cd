/**
 * One clock for all ranks, though each queue counts from a zero of its own and may be on another machine.
 *
 * Every rank throws a ball to rank 0 and gets it back, some times over. Of the throw that took the least time half is
 * taken for the way there: the error is at most half of what that throw took.
 */
import { invariant } from "../../base/index.ts";
import type { TracedBackend, TracedCommand } from "../../tensor/index.ts";
import type { Communicator } from "../communicator/communicator.ts";
import { gatherJson } from "../communicator/json.ts";

const THROWS = 16;

/** One throw as one side saw it, in seconds: when the ball went, when one came. */
export interface Throw {
  readonly sent: number;
  readonly came: number;
}

/** What to add to the seconds of this rank's queue to get those of rank 0's. Every rank calls it, its queue idle. */
export async function clockOffset(communicator: Communicator, traced: TracedBackend): Promise<number> {
  const { rank, size, device } = communicator;
  await device.drain();
  traced.take();
  using ball = device.temporary([0], "i32");
  const send = (to: number): void => communicator.exchange([{ to, x: ball }], []).wait();
  const receive = (from: number): void => communicator.exchange([], [{ from, y: ball }]).wait();
  const others = Array.from({ length: size - 1 }, (_, i) => i + 1);
  for (const other of others) {
    for (let i = 0; i < THROWS; i++) {
      const acts = rank === 0 ? [() => receive(other), () => send(other)] : [() => send(0), () => receive(0)];
      if (rank === 0 || rank === other) for (const act of acts) act();
    }
  }
  await device.drain();
  const throws = throwsOf(traced.take());
  const all = await gatherJson(communicator, throws);
  const own = rank === 0 ? 0 : offsetOf(all[0]!.slice(THROWS * (rank - 1), THROWS * rank), throws);
  await device.drain();
  traced.take();
  return own;
}

/** Each throw is a send and a receive with their awaits, in either order. */
function throwsOf(commands: readonly TracedCommand[]): readonly Throw[] {
  const sent = commands.filter(({ message }) => message?.part === "send").map(({ begin }) => begin / 1e9);
  const tickets = new Set<number>();
  const came: number[] = [];
  for (const { message, end } of commands) {
    if (message?.part === "receive") tickets.add(message.ticket);
    if (message?.part === "await" && tickets.delete(message.ticket)) came.push(end / 1e9);
  }
  invariant(sent.length === came.length, "every ball that goes comes back");
  return sent.map((at, i) => ({ sent: at, came: came[i]! }));
}

/** From rank 0's view of some throws, and the thrower's. */
export function offsetOf(atRoot: readonly Throw[], own: readonly Throw[]): number {
  const best = own
    .map(({ sent, came }, i) => {
      const root = atRoot[i]!;
      const underWay = came - sent - (root.sent - root.came);
      return { underWay, offset: (root.came - sent + (root.sent - came)) / 2 };
    })
    .reduce((least, one) => (one.underWay < least.underWay ? one : least));
  return best.offset;
}
