/** The communicator over a device's message commands: the same for ranks of one process and of many. */
import { CollectiveError, invariant } from "../../base/index.ts";
import {
  awaitMessages,
  type Endpoint,
  type MessageAddress,
  postReceive,
  postSend,
  type QueueDevice,
  type Tensor,
} from "../../tensor/index.ts";
import type { Communicator, Pending, Receive, Send } from "./communicator.ts";
import { Tickets } from "./tickets.ts";

/** Tags that callers may use in one communicator. */
const TAGS = 256;
/** Groups that one communicator can be split into, one after another; and the room for splits of splits. */
const SPLITS = 15;
const CONTEXT_LIMIT = 2 ** 16;

/** What all communicators over one queue share. */
interface World {
  readonly device: QueueDevice;
  readonly endpoint: Pick<Endpoint, "abort">;
  readonly tickets: Tickets;
}

export class QueueCommunicator implements Communicator {
  readonly rank: number;
  readonly size: number;
  readonly device: QueueDevice;
  readonly #world: World;
  /** World rank of each rank. */
  readonly #members: readonly number[];
  /** Keeps this communicator's messages apart from all others': the upper bits of every tag. */
  readonly #context: number;
  #splits = 0;

  private constructor(world: World, members: readonly number[], rank: number, context: number) {
    this.device = world.device;
    this.rank = rank;
    this.size = members.length;
    this.#world = world;
    this.#members = members;
    this.#context = context;
  }

  /** The communicator of all ranks. The device is already connected to `endpoint`, whose rank is `rank`. */
  static world(
    device: QueueDevice,
    endpoint: Pick<Endpoint, "abort">,
    rank: number,
    size: number,
  ): QueueCommunicator {
    const members = Array.from({ length: size }, (_, member) => member);
    return new QueueCommunicator({ device, endpoint, tickets: new Tickets() }, members, rank, 0);
  }

  exchange(sends: readonly Send[], receives: readonly Receive[], tag: number = 0): Pending {
    if (!Number.isInteger(tag) || tag < 0 || tag >= TAGS) {
      throw new CollectiveError(`tag ${tag} is asked for`, {
        why: `a communicator has tags 0 to ${TAGS - 1}`,
        fix: "use few tags; messages of one tag arrive in the order of their posts anyway",
        fields: { tag },
      });
    }
    const { device, tickets } = this.#world;
    const peers = [...sends.map(({ to }) => to), ...receives.map(({ from }) => from)];
    for (const peer of peers) this.#requirePeer(peer);
    const ticket = tickets.take(device.isRecording);
    const address = (peer: number): MessageAddress => ({
      ticket,
      peer: this.#members[peer]!,
      tag: this.#context * TAGS + tag,
    });
    const held = [...sends.map(({ x }) => x), ...receives.map(({ y }) => y)];
    const ranges = [...sends, ...receives].flatMap(({ range }) =>
      range === undefined ? [] : [range.offsets],
    );
    const tensors = [...held, ...ranges];
    for (const { storage } of tensors) storage.retain();
    for (const { to, x, range } of sends) postSend(x, address(to), range);
    for (const { from, y, range } of receives) postReceive(y, address(from), range);
    return this.#pending(ticket, tensors);
  }

  #pending(ticket: number, tensors: readonly Tensor[]): Pending {
    const { device, tickets } = this.#world;
    let isOpen = true;
    const wait = (): void => {
      invariant(isOpen, "an exchange is awaited twice");
      isOpen = false;
      awaitMessages(device, ticket);
      tickets.giveBack(ticket);
      for (const { storage } of tensors) storage.release();
    };
    return { wait };
  }

  split(members: readonly number[]): QueueCommunicator {
    for (const member of members) this.#requirePeer(member);
    const rank = members.indexOf(this.rank);
    if (rank < 0 || new Set(members).size !== members.length) {
      throw new CollectiveError(`rank ${this.rank} splits into the group [${members.join(", ")}]`, {
        why: "a rank names the group that it is in itself, every rank of it once",
        fix: "call split on every rank, each with its own group",
        fields: { rank: this.rank, members },
      });
    }
    this.#splits++;
    const context = this.#context * (SPLITS + 1) + this.#splits;
    if (this.#splits > SPLITS || context >= CONTEXT_LIMIT) {
      throw new CollectiveError(`a communicator is split ${this.#splits} times`, {
        why: `tags leave room for ${SPLITS} splits of each communicator, four deep`,
        fix: "split once when the ranks start, and keep the communicators",
        fields: { splits: this.#splits, context },
      });
    }
    const worldRanks = members.map((member) => this.#members[member]!);
    return new QueueCommunicator(this.#world, worldRanks, rank, context);
  }

  abort(why: string): void {
    this.#world.endpoint.abort(why);
  }

  #requirePeer(peer: number): void {
    if (Number.isInteger(peer) && peer >= 0 && peer < this.size) return;
    throw new CollectiveError(`rank ${this.rank} exchanges with rank ${peer} of ${this.size}`, {
      why: `the communicator has ranks 0 to ${this.size - 1}`,
      fix: "count ranks of a group from 0, in the order in which split was given them",
      fields: { rank: this.rank, peer, size: this.size },
    });
  }
}
