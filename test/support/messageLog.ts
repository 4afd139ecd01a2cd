/** What a rank's queue is given of messages, without numbers; and what becomes of the messages of all ranks. */
import { PlanBackend } from "../../src/tensor/index.ts";

export type MessageCommand =
  | {
      readonly kind: "send" | "receive";
      readonly ticket: number;
      /** World rank. */
      readonly peer: number;
      readonly tag: number;
      /** Numbers in one row, of as many rows as there are. */
      readonly width: number;
      readonly mark: string;
    }
  | { readonly kind: "await"; readonly ticket: number; readonly mark: string };

type Posted = Exclude<MessageCommand, { readonly kind: "await" }>;

export class MessageLog extends PlanBackend {
  readonly messages: MessageCommand[] = [];
  #mark = "";

  override mark(what: string = ""): void {
    this.#mark = what;
  }

  override enqueue(...command: Parameters<PlanBackend["enqueue"]>): void {
    const [{ special, params: names }, , params] = command;
    const of = (name: string): number => params[names.indexOf(name)] as number;
    const mark = this.#mark;
    if (special === "await") this.messages.push({ kind: "await", ticket: of("ticket"), mark });
    if (special === "send" || special === "receive") {
      const address = { ticket: of("ticket"), peer: of("peer"), tag: of("tag"), width: of("width") };
      this.messages.push({ kind: special, ...address, mark });
    }
    super.enqueue(...command);
  }
}

/** A message as its sender and as its receiver know it. */
export interface Delivery {
  readonly sender: number;
  readonly receiver: number;
  readonly sent: Posted;
  readonly received: Posted;
}

/**
 * Carries out the lists of all ranks at once. A send is done when its receive has been posted, which is the least that a
 * transport may promise.
 *
 * @throws {Error} if ranks wait for one another, or a message is left over
 */
export function deliver(ranks: readonly (readonly MessageCommand[])[]): readonly Delivery[] {
  const sends = new Map<string, Posted[]>();
  const receives = new Map<string, Posted[]>();
  const channelOf = (rank: number, { kind, peer, tag }: Posted): string =>
    kind === "send" ? `${rank} to ${peer}, tag ${tag}` : `${peer} to ${rank}, tag ${tag}`;
  /** By rank and ticket: what is open, each the how-manieth of its channel. */
  const open = ranks.map(() => new Map<number, { channel: string; place: number; others: typeof sends }[]>());
  const at = ranks.map(() => 0);
  const isDone = (rank: number, ticket: number): boolean =>
    (open[rank]!.get(ticket) ?? []).every(
      ({ channel, place, others }) => (others.get(channel)?.length ?? 0) > place,
    );
  const advance = (rank: number): boolean => {
    const command = ranks[rank]![at[rank]!];
    if (command === undefined) return false;
    const { ticket } = command;
    if (command.kind === "await") {
      if (!isDone(rank, ticket)) return false;
      open[rank]!.delete(ticket);
    } else {
      const [own, others] = command.kind === "send" ? [sends, receives] : [receives, sends];
      const channel = channelOf(rank, command);
      const posted = own.get(channel) ?? [];
      own.set(channel, posted);
      const waiting = open[rank]!.get(ticket) ?? [];
      open[rank]!.set(ticket, [...waiting, { channel, place: posted.length, others }]);
      posted.push(command);
    }
    at[rank]!++;
    return true;
  };
  for (let moved = true; moved; ) {
    moved = false;
    for (const rank of ranks.keys()) while (advance(rank)) moved = true;
  }
  const stuck = [...ranks.keys()].filter((rank) => at[rank]! < ranks[rank]!.length);
  if (stuck.length > 0) throw new Error(`ranks ${stuck.join(", ")} wait for one another`);
  return [...new Set([...sends.keys(), ...receives.keys()])].flatMap((channel) => {
    const [sent, received] = [sends.get(channel) ?? [], receives.get(channel) ?? []];
    if (sent.length !== received.length)
      throw new Error(`${channel}: ${sent.length} messages, ${received.length} awaited`);
    const [sender, receiver] = [received[0]!.peer, sent[0]!.peer];
    return sent.map((one, i) => ({ sender, receiver, sent: one, received: received[i]! }));
  });
}
