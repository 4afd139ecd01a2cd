/**
 * Messages between reference queues of one process: mailboxes, and promises for those who wait.
 *
 * Its twin is native/kernels/src/message/hub.rs; both say the same words when something goes wrong. A message is
 * copied when it is posted, so sending never waits.
 */
import type { Endpoint, HubLink } from "../backend.ts";
import { checkedLink, checkedTimeout } from "../link.ts";
import { MESSAGE_TIMEOUT_SECONDS } from "../messageFailure.ts";

/** Messages of one sender, receiver and tag: the n-th that is sent goes to the n-th that is posted. */
interface Channel {
  sent: number;
  posted: number;
  readonly arrived: Map<number, Uint8Array>;
  readonly waiting: Map<number, (message: Uint8Array) => void>;
}

interface Receive {
  readonly peer: number;
  readonly tag: number;
  readonly index: number;
  readonly target: Uint8Array;
}

export class ReferenceHub {
  readonly ranks: number;
  readonly timeoutSeconds: number;
  readonly #channels: Map<string, Channel> = new Map();
  readonly #link: HubLink | null;
  /** When the wire from one rank to another is free again, in milliseconds of `performance.now`. */
  readonly #free: Map<string, number> = new Map();
  readonly #rejects: Set<(error: Error) => void> = new Set();
  #failure: string | null = null;

  /** @param link  imitated; without one messages are there at once */
  constructor(ranks: number, timeoutSeconds: number = MESSAGE_TIMEOUT_SECONDS, link?: HubLink) {
    this.ranks = ranks;
    this.timeoutSeconds = checkedTimeout(timeoutSeconds);
    this.#link = checkedLink(link) ?? null;
  }

  endpoint(rank: number): ReferenceEndpoint {
    if (!Number.isInteger(rank) || rank < 0 || rank >= this.ranks) {
      throw new RangeError(`there is no rank ${rank}: ${ranksOf(this.ranks)}`);
    }
    return new ReferenceEndpoint(this, rank);
  }

  /** Throws if a rank has failed. */
  checkFailure(): void {
    if (this.#failure !== null) throw new Error(this.#failure);
  }

  /** Throws if a rank has failed, or there is no such peer. */
  check(rank: number, verb: string, peer: number): void {
    this.checkFailure();
    if (peer >= this.ranks) throw new Error(`rank ${rank} ${verb} rank ${peer}: ${ranksOf(this.ranks)}`);
  }

  channel(sender: number, receiver: number, tag: number): Channel {
    const key = `${sender} ${receiver} ${tag}`;
    let channel = this.#channels.get(key);
    if (channel === undefined) {
      channel = { sent: 0, posted: 0, arrived: new Map(), waiting: new Map() };
      this.#channels.set(key, channel);
    }
    return channel;
  }

  /** Calls `deliver` when a message that is sent now has come over the link. */
  travel(sender: number, receiver: number, bytes: number, deliver: () => void): void {
    if (this.#link === null || sender === receiver) {
      deliver();
      return;
    }
    const { latencySeconds, bytesPerSecond } = this.#link;
    const wire = `${sender} ${receiver}`;
    const now = performance.now();
    const free = Math.max(now, this.#free.get(wire) ?? now) + (1000 * bytes) / bytesPerSecond;
    this.#free.set(wire, free);
    setTimeout(deliver, free + 1000 * latencySeconds - now);
  }

  /** The message that belongs to a posted receive, when it is there; `deadline` in milliseconds of `performance.now`. */
  arrival(receiver: number, { peer, tag, index }: Receive, deadline: number): Promise<Uint8Array> {
    const channel = this.channel(peer, receiver, tag);
    return new Promise((resolve, reject) => {
      if (this.#failure !== null) return reject(new Error(this.#failure));
      const message = channel.arrived.get(index);
      if (message !== undefined) {
        channel.arrived.delete(index);
        return resolve(message);
      }
      const settle = (): void => {
        clearTimeout(timer);
        channel.waiting.delete(index);
        this.#rejects.delete(fail);
      };
      const fail = (error: Error): void => {
        settle();
        reject(error);
      };
      const timer = setTimeout(
        () =>
          fail(
            new Error(
              `rank ${receiver} waited ${this.timeoutSeconds} s for a message of rank ${peer} (tag ${tag})`,
            ),
          ),
        Math.max(0, deadline - performance.now()),
      );
      this.#rejects.add(fail);
      channel.waiting.set(index, (arrived) => {
        settle();
        resolve(arrived);
      });
    });
  }

  /** The first failure counts: what other ranks meet afterwards follows from it. */
  abort(rank: number, why: string): void {
    if (this.#failure !== null) return;
    this.#failure = `rank ${rank} failed: ${why}`;
    for (const reject of [...this.#rejects]) reject(new Error(this.#failure));
  }
}

/** What one reference queue is connected to. */
export class ReferenceEndpoint implements Endpoint {
  readonly rank: number;
  readonly #hub: ReferenceHub;
  readonly #receives: Map<number, Receive[]> = new Map();
  #isTaken = false;

  constructor(hub: ReferenceHub, rank: number) {
    this.#hub = hub;
    this.rank = rank;
  }

  /** For the queue that is to be connected: two with one endpoint would take each other's messages. */
  take(): void {
    if (this.#isTaken) throw new Error(`the endpoint of rank ${this.rank} is connected to a queue already`);
    this.#isTaken = true;
  }

  postSend(peer: number, tag: number, bytes: Uint8Array): void {
    this.#hub.check(this.rank, "sends to", peer);
    const channel = this.#hub.channel(this.rank, peer, tag);
    const index = channel.sent++;
    const message = bytes.slice();
    this.#hub.travel(this.rank, peer, message.length, () => {
      const deliver = channel.waiting.get(index);
      if (deliver === undefined) channel.arrived.set(index, message);
      else deliver(message);
    });
  }

  postReceive(ticket: number, peer: number, tag: number, target: Uint8Array): void {
    this.#hub.check(this.rank, "receives from", peer);
    const index = this.#hub.channel(peer, this.rank, tag).posted++;
    const posted = this.#receives.get(ticket) ?? [];
    posted.push({ peer, tag, index, target });
    this.#receives.set(ticket, posted);
  }

  /** Resolves when all that was posted under the ticket is there. */
  async wait(ticket: number): Promise<void> {
    this.#hub.checkFailure();
    const deadline = performance.now() + 1000 * this.#hub.timeoutSeconds;
    const receives = this.#receives.get(ticket) ?? [];
    this.#receives.delete(ticket);
    for (const receive of receives) {
      const message = await this.#hub.arrival(this.rank, receive, deadline);
      const { peer, tag, target } = receive;
      if (message.length !== target.length) {
        throw new Error(
          `rank ${this.rank} got ${message.length} bytes from rank ${peer} (tag ${tag}) where ${target.length} were awaited`,
        );
      }
      target.set(message);
    }
  }

  abort(why: string): void {
    this.#hub.abort(this.rank, why);
  }
}

function ranksOf(ranks: number): string {
  return ranks === 1 ? "there is rank 0 alone" : `there are ranks 0 to ${ranks - 1}`;
}
