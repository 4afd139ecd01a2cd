/**
 * Tokens to their experts in two hops: over the slow network once for each node, then inside the node.
 *
 * A token goes to the rank with the sender's own number in every node that has an expert of it, and from there to the
 * ranks of that node that hold its experts. Answers come back to the rank that handed the token on; it sums them for
 * each group of experts and sends one sum back, in f32, because one process does not round there either. A group lies
 * in one node, so the sender adds whole groups, ascending, as `combine` does: the bits are those of one process. The
 * router lets a token visit topkGroup groups, so no more nodes than that get a copy.
 *
 * Which copies go where is described, and counted, in ../twoHop.ts, too.
 *
 * Dims: N nodes of p ranks, E experts in G groups, T tokens of each rank, K experts per token.
 *
 * Source: DeepSeek-V3 report, section 3.2.2.
 */
import { ConfigError } from "../../base/index.ts";
import type { AskedRows, ExpertDispatch, TokensUnderWay } from "../../model/index.ts";
import {
  type Activation,
  type CopyPlan,
  combineCopies,
  type DispatchPlan,
  expertLoad,
  gatherRows,
  planCopies,
  scoped,
  spreadToRows,
  type Tensor,
  tensorsOf,
} from "../../tensor/index.ts";
import type { Communicator, Pending, Receive, Send } from "../communicator/communicator.ts";
import {
  askedRows,
  EXCHANGE_TAGS,
  type ExchangeSteps,
  type ExchangeTags,
  recordExchange,
} from "./exchangeTape.ts";
import { type Bundle, type Crossing, Leg, Post } from "./leg.ts";

/** Copies of tokens that a rank has sent, to be added to. */
export interface TwoHopCounts {
  /** [N] i32: by node, the own one included */
  readonly firstHop: Tensor;
  /** [p] i32: by rank of the node, for all senders that hand tokens to this one */
  readonly secondHop: Tensor;
}

export class TwoHopExchange implements ExpertDispatch {
  /** To the ranks of the same number in all nodes. */
  readonly #across: Leg;
  /** To the ranks of the own node. */
  readonly #inside: Leg;
  readonly #tags: ExchangeTags;
  readonly #counts: TwoHopCounts | null;

  /**
   * @param communicator  of the expert group, nodes one after another: rank g holds experts g * E / (N * p) on
   * @param tags          its own for each exchange that may be built beside another
   * @throws {ConfigError} if nodes are not of one size
   */
  constructor(
    communicator: Communicator,
    ranksPerNode: number,
    tags: ExchangeTags = EXCHANGE_TAGS,
    counts: TwoHopCounts | null = null,
  ) {
    const { rank, size } = communicator;
    if (!Number.isInteger(size / ranksPerNode)) {
      throw new ConfigError(`${size} ranks share the experts, ${ranksPerNode} of them on a node`, {
        why: "a token goes to the rank with the sender's own number in another node: nodes are of one size",
        fix: `use a divisor of ${size} as ranks of a node`,
        fields: { ranks: size, ranksPerNode },
      });
    }
    const nodes = Array.from({ length: size / ranksPerNode }, (_, node) => node);
    const [own, number] = [Math.floor(rank / ranksPerNode), rank % ranksPerNode];
    this.#across = new Leg(
      communicator,
      nodes.map((node) => node * ranksPerNode + number),
    );
    this.#inside = new Leg(
      communicator,
      Array.from({ length: ranksPerNode }, (_, at) => own * ranksPerNode + at),
    );
    this.#tags = tags;
    this.#counts = counts;
  }

  post(input: Activation, plan: DispatchPlan, weights: Tensor): TokensUnderWay {
    const { communicator } = this.#across;
    const { device } = communicator;
    const [T, K] = [plan.slotRow.dim(0), plan.slotRow.dim(-1)];
    const E = plan.offsets.size - 1;
    requireWholeGroups(E, plan.groupSize, this.#across.peers.length);
    const first = this.#across.begin(
      [{ offsets: plan.offsets, rows: plan.rows, tokens: T }],
      K,
      this.#tags.forward,
    );
    const [copies] = first.copies;
    if (this.#counts !== null) expertLoad({ ...plan, offsets: copies!.bounds }, this.#counts.firstHop);
    const payload = tensorsOf(input).map((tensor) => first.gather(0, tensor));
    const gates = spreadToRows(weights, plan);
    first.announced.wait();
    const post = new Post(this.#across, this.#tags.forward);
    const make = device.empty.bind(device);
    const x = payload.map((part) => first.sendCopies(post, [part], make)[0]!);
    const [rows] = first.sendRows(post, [copies!.rowCopy], make);
    const [asking] = first.sendRows(post, [gates], make);
    const groups = planCopies(plan.offsets, plan.rows, {
      units: E / plan.groupSize,
      tokens: T,
      topK: K,
      sums: true,
    });
    const handed: Handed = { x, rows: rows!, gates: asking! };
    const steps = new Steps(
      { first, inside: this.#inside, groups, plan, tags: this.#tags, counts: this.#counts },
      handed,
      post.go(),
    );
    return recordExchange(communicator, { input, plan, weights, asked: null }, steps);
  }
}

/** What other nodes' ranks have handed to this one, by node. */
interface Handed {
  /** By part: numbers, or codes and scales. */
  readonly x: readonly (readonly Tensor[])[];
  readonly rows: readonly Tensor[];
  readonly gates: readonly Tensor[];
}

interface Route {
  readonly first: Crossing;
  readonly inside: Leg;
  /** Of the own tokens: one copy for each group that a token visits. */
  readonly groups: CopyPlan;
  readonly plan: DispatchPlan;
  readonly tags: ExchangeTags;
  readonly counts: TwoHopCounts | null;
}

class Steps implements ExchangeSteps {
  readonly #route: Route;
  readonly #handed: Handed;
  readonly #pending: Pending;
  #second: Crossing | null = null;
  /** By node from which tokens were handed on: one copy for each group of this node that a token visits. */
  #sums: readonly CopyPlan[] = [];

  constructor(route: Route, handed: Handed, pending: Pending) {
    this.#route = route;
    this.#handed = handed;
    this.#pending = pending;
  }

  get tensors(): readonly Tensor[] {
    const { first, groups } = this.#route;
    const sums = [groups, ...this.#sums].flatMap(({ bounds, copyRows, tokenCopies }) => [
      bounds,
      copyRows!,
      tokenCopies!,
    ]);
    return [...first.tensors, ...(this.#second?.tensors ?? []), ...sums];
  }

  arrive(): readonly AskedRows[] {
    const { first, inside, plan, tags, counts } = this.#route;
    const { x, rows, gates } = this.#handed;
    const [T, K] = [plan.slotRow.dim(0), plan.slotRow.dim(-1)];
    const { device } = plan.offsets;
    this.#pending.wait();
    const bundles = first.headers[0]!.map(
      ({ offsets }, node): Bundle => ({ offsets, rows: rows[node]!, tokens: T }),
    );
    const second = inside.begin(bundles, K, tags.forward);
    this.#second = second;
    if (counts !== null) {
      for (const { bounds } of second.copies) expertLoad({ ...plan, offsets: bounds }, counts.secondHop);
    }
    const payload = x.map((part) => bundles.map((_, node) => second.gather(node, part[node]!)));
    const units = (bundles[0]!.offsets.size - 1) / plan.groupSize;
    this.#sums = bundles.map(({ offsets, rows: own }) =>
      planCopies(offsets, own, { units, tokens: T, topK: K, sums: true }),
    );
    second.announced.wait();
    const post = new Post(inside, tags.forward);
    const make = device.empty.bind(device);
    // By node, then by rank of this node: the senders in the order of their ranks.
    const came = payload.map((part) => second.sendCopies(post, part, make).flat());
    const copied = second.copies.map(({ rowCopy }) => rowCopy);
    const tokens = second.sendRows(post, copied, make).flat();
    const asking = second.sendRows(post, gates, make).flat();
    post.go().wait();
    return askedRows(second.headers.flat(), came, tokens, asking);
  }

  answer(answers: readonly Tensor[], weights: Tensor, shared: Tensor | null, dtype: Tensor["dtype"]): Tensor {
    const sum = (): Tensor => {
      const { forward } = this.#route.tags;
      const { arrived } = this.#sumBack(answers, this.#handed.gates, forward);
      arrived.pending.wait();
      return combineCopies(arrived.sums, this.#route.groups.tokenCopies!, { rowsAre: "sums", shared, dtype });
    };
    return scoped(weights.device, sum, (y) => [y]);
  }

  sendGradient(parts: readonly Tensor[]): readonly (readonly Tensor[])[] {
    const { first, inside, tags } = this.#route;
    const second = this.#second!;
    const { device } = parts[0]!;
    const make = device.empty.bind(device);
    const across = new Post(first.leg, tags.backward);
    const handed = parts.map((part) => first.sendCopies(across, [first.gather(0, part)], make)[0]!);
    across.go().wait();
    const post = new Post(inside, tags.backward);
    const came = handed.map((part) =>
      second
        .sendCopies(
          post,
          part.map((tensor, node) => second.gather(node, tensor)),
          make,
        )
        .flat(),
    );
    post.go().wait();
    return came[0]!.map((_, sender) => came.map((part) => part[sender]!));
  }

  sendBack(rows: readonly Tensor[], gates: readonly Tensor[]): ReturnType<ExchangeSteps["sendBack"]> {
    const { groups, plan, tags } = this.#route;
    const dtype = rows[0]!.dtype;
    const { arrived, ownGates } = this.#sumBack(rows, null, tags.backward, gates);
    return (before) => {
      arrived.pending.wait();
      using sums = arrived.sums;
      using dGates = ownGates!;
      const dx = combineCopies(sums, groups.tokenCopies!, { rowsAre: "sums", shared: before, dtype });
      return { dx, dSlots: gatherRows(dGates, plan.slotRow.reshape(-1)) };
    };
  }

  /**
   * Takes rows to who handed their tokens on, sums them there for each token and group, and begins to send the sums.
   *
   * @param rows     by sender
   * @param weights  by node: how much each row counts; null for ones
   * @param numbers  by sender: numbers of rows that go all the way unsummed
   * @returns        sums of the own tokens [C, D] in the order of their copies by group, and their numbers by row
   */
  #sumBack(
    rows: readonly Tensor[],
    weights: readonly Tensor[] | null,
    tag: number,
    numbers: readonly Tensor[] | null = null,
  ): {
    readonly arrived: { readonly pending: Pending; readonly sums: Tensor };
    readonly ownGates: Tensor | null;
  } {
    const { first, inside, groups, plan } = this.#route;
    const { device } = plan.offsets;
    const make = device.empty.bind(device);
    const keep = numbers === null ? make : device.temporary.bind(device);
    const post = new Post(inside, tag);
    const inNode = this.#second!.sendBack(post, this.#bySender(rows), make);
    const passing = numbers === null ? null : this.#second!.sendBack(post, this.#bySender(numbers), make);
    post.go().wait();
    const partial = this.#sums.map(({ copyRows, bounds }, node) =>
      combineCopies(inNode[node]!, copyRows!, {
        rowsAre: "slots",
        weights: weights === null ? null : gatherRows(weights[node]!, copyRows!.reshape(-1)),
        count: bounds.rows(bounds.size - 1, bounds.size),
        shared: null,
        dtype: inNode[node]!.dtype === "f64" ? "f64" : "f32",
      }),
    );
    const sums = keep([groups.tokens.size, rows[0]!.dim(-1)], partial[0]!.dtype);
    const across = new Post(first.leg, tag);
    across.sends.push(
      ...this.#sumsOf(partial).map((send, node) => ({ ...send, to: first.leg.peers[node]! })),
    );
    across.receives.push(...this.#placesOf(sums));
    const ownGates = passing === null ? null : first.sendBack(across, [passing], keep)[0]!;
    return { arrived: { pending: across.go(), sums }, ownGates };
  }

  #sumsOf(partial: readonly Tensor[]): readonly Pick<Send, "x" | "range">[] {
    return partial.map((x, node) => {
      const { bounds } = this.#sums[node]!;
      return { x, range: { offsets: bounds, begin: 0, end: bounds.size - 1 } };
    });
  }

  /** Where the sums that a node makes belong: groups lie in nodes one after another. */
  #placesOf(sums: Tensor): readonly Receive[] {
    const { first, groups } = this.#route;
    const perNode = (groups.bounds.size - 1) / first.leg.peers.length;
    return first.leg.peers.map((from, node) => ({
      from,
      y: sums,
      range: { offsets: groups.bounds, begin: node * perNode, end: (node + 1) * perNode },
    }));
  }

  /** By node, then by rank of this node, as rows came. */
  #bySender(rows: readonly Tensor[]): readonly (readonly Tensor[])[] {
    const width = this.#route.inside.peers.length;
    return this.#second!.bundles.map((_, node) => rows.slice(node * width, (node + 1) * width));
  }
}

function requireWholeGroups(experts: number, groupSize: number, nodes: number): void {
  const perNode = experts / nodes;
  if (Number.isInteger(perNode / groupSize)) return;
  throw new ConfigError(`${experts} experts in groups of ${groupSize} do not lie on ${nodes} nodes`, {
    why: "a node sums the answers of whole groups: otherwise sums would depend on where experts lie",
    fix: `use a number of nodes that divides the ${experts / groupSize} groups`,
    fields: { experts, groupSize, nodes },
  });
}
