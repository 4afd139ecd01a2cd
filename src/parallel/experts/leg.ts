/**
 * One leg of the way to the experts: from a rank to some others, each of which is answerable for neighbouring experts.
 *
 * What is sent comes in bundles: a rank's own tokens, or those that another rank has handed to it for sending on. Of a
 * bundle each peer gets the tokens that have an expert there, once each, and the rows that they make, in the order of
 * the bundle's plan. How much that is, the queue alone knows: headers of fixed size say it first, and everything behind
 * is as long as they say. Rows travel back the same way and fall into their places in the bundle's plan.
 *
 * Dims: B bundles, P peers, T tokens that a bundle has room for.
 */
import {
  type CopyPlan,
  emptyHeader,
  gatherRows,
  planCopies,
  type Tensor,
  type UnitHeader,
} from "../../tensor/index.ts";
import type { Communicator, Pending, Receive, Send } from "../communicator/communicator.ts";

/** Tokens that are sent together, and the rows that they make for the experts of all peers. */
export interface Bundle {
  /** [E + 1] i32: expert e owns rows offsets[e] to offsets[e + 1] */
  readonly offsets: Tensor;
  /** [R] i32: the token of each row */
  readonly rows: Tensor;
  /** T */
  readonly tokens: number;
}

type Make = (shape: readonly number[], dtype: Tensor["dtype"]) => Tensor;

export class Leg {
  readonly communicator: Communicator;
  /** Ranks of the communicator; the first has the first experts. May contain the rank itself. */
  readonly peers: readonly number[];

  constructor(communicator: Communicator, peers: readonly number[]) {
    this.communicator = communicator;
    this.peers = peers;
  }

  /** Plans the copies of each bundle and begins to tell the peers how many there are. */
  begin(bundles: readonly Bundle[], topK: number, tag: number): Crossing {
    return new Crossing(this, bundles, topK, tag);
  }
}

/** Messages that are collected, to be posted together. */
export class Post {
  readonly #communicator: Communicator;
  readonly #tag: number;
  readonly sends: Send[] = [];
  readonly receives: Receive[] = [];

  constructor({ communicator }: Leg, tag: number) {
    this.#communicator = communicator;
    this.#tag = tag;
  }

  go(): Pending {
    return this.#communicator.exchange(this.sends, this.receives, this.#tag);
  }
}

/** What crosses one leg in one dispatch: there, and everything that goes back or comes again later. */
export class Crossing {
  readonly leg: Leg;
  readonly bundles: readonly Bundle[];
  /** By bundle that leaves. */
  readonly copies: readonly CopyPlan[];
  /** By bundle that arrives, by peer from which it comes; known once `announced` is awaited. */
  readonly headers: readonly (readonly UnitHeader[])[];
  readonly announced: Pending;
  readonly #topK: number;
  /** Experts of each peer, and of this rank. */
  readonly #experts: number;

  constructor(leg: Leg, bundles: readonly Bundle[], topK: number, tag: number) {
    const units = leg.peers.length;
    this.leg = leg;
    this.bundles = bundles;
    this.#topK = topK;
    this.#experts = (bundles[0]!.offsets.size - 1) / units;
    this.copies = bundles.map(({ offsets, rows, tokens }) =>
      planCopies(offsets, rows, { units, tokens, topK }),
    );
    this.headers = bundles.map(({ offsets }) => leg.peers.map(() => emptyHeader(offsets, this.#experts)));
    const post = new Post(leg, tag);
    this.#each((bundle, at, peer) => {
      post.sends.push({ to: peer, x: this.copies[bundle]!.headers[at]!.all });
      post.receives.push({ from: peer, y: this.headers[bundle]![at]!.all });
    });
    this.announced = post.go();
  }

  /** Everything that the way back reads. */
  get tensors(): readonly Tensor[] {
    return [
      ...this.bundles.map(({ offsets }) => offsets),
      ...this.copies.flatMap(({ tokens, bounds }) => [tokens, bounds]),
      ...this.headers.flat().map(({ all }) => all),
    ];
  }

  /** Rows that a peer's bundle has room for. */
  rowsThere(bundle: number): number {
    return this.bundles[bundle]!.tokens * Math.min(this.#topK, this.#experts);
  }

  /** The copies of each token of a tensor, in the order in which they are sent. */
  gather(bundle: number, x: Tensor): Tensor {
    const { tokens, bounds } = this.copies[bundle]!;
    const units = this.leg.peers.length;
    return gatherRows(x, tokens, bounds.rows(units, units + 1));
  }

  /**
   * Adds messages with copies of tokens, one for each peer.
   *
   * @param gathered  by bundle, from `gather`
   * @returns         by bundle that arrives, by peer: [T, ...]
   */
  sendCopies(post: Post, gathered: readonly Tensor[], make: Make): Tensor[][] {
    const came = this.bundles.map(({ tokens }, bundle) => {
      const { shape, dtype } = gathered[bundle]!;
      return this.leg.peers.map(() => make([tokens, ...shape.slice(1)], dtype));
    });
    this.#each((bundle, at, peer) => {
      const { bounds } = this.copies[bundle]!;
      post.sends.push({
        to: peer,
        x: gathered[bundle]!,
        range: { offsets: bounds, begin: at, end: at + 1 },
      });
      const { copies } = this.headers[bundle]![at]!;
      post.receives.push({
        from: peer,
        y: came[bundle]![at]!,
        range: { offsets: copies, begin: 0, end: 1 },
      });
    });
    return came;
  }

  /**
   * Adds messages with what each row has, to the peer whose expert it is for.
   *
   * @param rows  by bundle: [R, ...] in the bundle's plan
   * @returns     by bundle that arrives, by peer
   */
  sendRows(post: Post, rows: readonly Tensor[], make: Make): Tensor[][] {
    const came = this.bundles.map((_, bundle) => {
      const { shape, dtype } = rows[bundle]!;
      return this.leg.peers.map(() => make([this.rowsThere(bundle), ...shape.slice(1)], dtype));
    });
    this.#each((bundle, at, peer) => {
      post.sends.push({ to: peer, x: rows[bundle]!, range: this.#rowsOf(bundle, at) });
      post.receives.push({ from: peer, y: came[bundle]![at]!, range: this.#rowsFrom(bundle, at) });
    });
    return came;
  }

  /**
   * Adds messages that take rows back to where they came from.
   *
   * @param rows  by bundle that arrived, by peer
   * @returns     by bundle: [R, ...] in the bundle's plan
   */
  sendBack(post: Post, rows: readonly (readonly Tensor[])[], make: Make): Tensor[] {
    const came = this.bundles.map(({ rows: places }, bundle) => {
      const { shape, dtype } = rows[bundle]![0]!;
      return make([places.size, ...shape.slice(1)], dtype);
    });
    this.#each((bundle, at, peer) => {
      post.sends.push({ to: peer, x: rows[bundle]![at]!, range: this.#rowsFrom(bundle, at) });
      post.receives.push({ from: peer, y: came[bundle]!, range: this.#rowsOf(bundle, at) });
    });
    return came;
  }

  /** Rows of a bundle that are for the experts of a peer. */
  #rowsOf(bundle: number, at: number): NonNullable<Send["range"]> {
    const { offsets } = this.bundles[bundle]!;
    return { offsets, begin: at * this.#experts, end: (at + 1) * this.#experts };
  }

  /** All rows that came from a peer. */
  #rowsFrom(bundle: number, at: number): NonNullable<Send["range"]> {
    const { offsets } = this.headers[bundle]![at]!;
    return { offsets, begin: 0, end: this.#experts };
  }

  #each(visit: (bundle: number, at: number, peer: number) => void): void {
    for (const bundle of this.bundles.keys()) {
      for (const [at, peer] of this.leg.peers.entries()) visit(bundle, at, peer);
    }
  }
}
