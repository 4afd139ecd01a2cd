/**
 * Tokens to the ranks that hold their experts and answers back, straight from rank to rank.
 *
 * Every rank of an expert group computes a micro-batch of its own at the same time. Each sends a token once to every
 * rank that holds one of its experts, however many it has there; with the tokens goes which rows they make, so that the
 * owner of the experts needs no plan of its own.
 *
 * The way back mirrors it: what `combine` is to the forward pass, a dispatch of y's gradient is to the backward pass,
 * and what `dispatch` is, a combination of the rows' gradients. A rank's own plan lists the rows of all experts one
 * after another, so answers fall into place where the sender would have computed them itself, and are summed by the
 * same kernel in the same order: the bits are those of one process.
 *
 * Between nodes that are far apart, ./twoHopExchange.ts sends less.
 *
 * Source: DeepSeek-V3 report, section 3.2.2.
 */
import type { AskedRows, ExpertDispatch, TokensUnderWay } from "../../model/index.ts";
import {
  type Activation,
  combine,
  type DispatchPlan,
  expertLoad,
  gatherRows,
  spreadToRows,
  type Tensor,
  tensorsOf,
} from "../../tensor/index.ts";
import type { Communicator, Pending } from "../communicator/communicator.ts";
import {
  askedRows,
  EXCHANGE_TAGS,
  type ExchangeSteps,
  type ExchangeTags,
  recordExchange,
} from "./exchangeTape.ts";
import { type Crossing, Leg, Post } from "./leg.ts";

export class ExpertExchange implements ExpertDispatch {
  readonly #leg: Leg;
  readonly #tags: ExchangeTags;
  readonly #sent: Tensor | null;

  /**
   * @param communicator  of the expert group of P ranks: rank g holds experts g * E / P on
   * @param tags          its own for each exchange that may be built beside another
   * @param sent          [P] i32, to which copies of tokens are added by receiving rank
   */
  constructor(communicator: Communicator, tags: ExchangeTags = EXCHANGE_TAGS, sent: Tensor | null = null) {
    this.#leg = new Leg(
      communicator,
      Array.from({ length: communicator.size }, (_, rank) => rank),
    );
    this.#tags = tags;
    this.#sent = sent;
  }

  post(input: Activation, plan: DispatchPlan, weights: Tensor): TokensUnderWay {
    const { device } = this.#leg.communicator;
    const [T, K] = [plan.slotRow.dim(0), plan.slotRow.dim(-1)];
    const crossing = this.#leg.begin(
      [{ offsets: plan.offsets, rows: plan.rows, tokens: T }],
      K,
      this.#tags.forward,
    );
    const [copies] = crossing.copies;
    if (this.#sent !== null) expertLoad({ ...plan, offsets: copies!.bounds }, this.#sent);
    const payload = tensorsOf(input).map((tensor) => crossing.gather(0, tensor));
    const gates = spreadToRows(weights, plan);
    crossing.announced.wait();

    const post = new Post(this.#leg, this.#tags.forward);
    const make = device.empty.bind(device);
    const x = payload.map((part) => crossing.sendCopies(post, [part], make)[0]!);
    const [tokens] = crossing.sendRows(post, [copies!.rowCopy], make);
    const [asking] = crossing.sendRows(post, [gates], make);
    const asked = askedRows(crossing.headers[0]!, x, tokens!, asking!);
    return recordExchange(
      this.#leg.communicator,
      { input, plan, weights, asked },
      new Steps(crossing, plan, this.#tags, post.go()),
    );
  }
}

/** What follows the post, in the order in which it is called. */
class Steps implements ExchangeSteps {
  readonly #crossing: Crossing;
  readonly #plan: DispatchPlan;
  readonly #tags: ExchangeTags;
  readonly #pending: Pending;

  constructor(crossing: Crossing, plan: DispatchPlan, tags: ExchangeTags, pending: Pending) {
    this.#crossing = crossing;
    this.#plan = plan;
    this.#tags = tags;
    this.#pending = pending;
  }

  get tensors(): readonly Tensor[] {
    return this.#crossing.tensors;
  }

  arrive(): readonly AskedRows[] | null {
    this.#pending.wait();
    return null;
  }

  answer(answers: readonly Tensor[], weights: Tensor, shared: Tensor | null, dtype: Tensor["dtype"]): Tensor {
    const { device } = weights;
    const post = new Post(this.#crossing.leg, this.#tags.forward);
    const [own] = this.#crossing.sendBack(post, [answers], device.temporary.bind(device));
    using rows = own!;
    post.go().wait();
    return combine(rows, this.#plan, weights, shared, dtype);
  }

  sendGradient(parts: readonly Tensor[]): readonly (readonly Tensor[])[] {
    const post = new Post(this.#crossing.leg, this.#tags.backward);
    const { device } = parts[0]!;
    const make = device.empty.bind(device);
    const came = parts.map(
      (part) => this.#crossing.sendCopies(post, [this.#crossing.gather(0, part)], make)[0]!,
    );
    post.go().wait();
    return this.#crossing.leg.peers.map((_, at) => came.map((part) => part[at]!));
  }

  sendBack(rows: readonly Tensor[], gates: readonly Tensor[]): ReturnType<ExchangeSteps["sendBack"]> {
    const { device } = rows[0]!;
    const post = new Post(this.#crossing.leg, this.#tags.backward);
    const make = device.temporary.bind(device);
    const [ownRows] = this.#crossing.sendBack(post, [rows], make);
    const [ownGates] = this.#crossing.sendBack(post, [gates], make);
    const pending = post.go();
    return (before) => {
      pending.wait();
      using dRows = ownRows!;
      using dGates = ownGates!;
      const dx = combine(dRows, this.#plan, null, before, dRows.dtype);
      return { dx, dSlots: gatherRows(dGates, this.#plan.slotRow.reshape(-1)) };
    };
  }
}
