/**
 * Tokens to the ranks that hold their experts and answers back, straight from rank to rank.
 *
 * Every rank of an expert group computes a micro-batch of its own at the same time. Each sends a token once to every
 * rank that holds one of its experts, however many it has there; with the tokens goes which rows they make, so that the
 * owner of the experts needs no plan of its own. How much goes where is known to the queue alone: a message of fixed
 * size says it first, and the messages behind are as long as it says.
 *
 * The way back mirrors it: what `combine` is to the forward pass, a dispatch of y's gradient is to the backward pass,
 * and what `dispatch` is, a combination of the rows' gradients. A rank's own plan lists the rows of all experts one
 * after another, so answers fall into place where the sender would have computed them itself, and are summed by the
 * same kernel in the same order: the bits are those of one process.
 *
 * Dims: P ranks of the group, E experts, T tokens of each rank, K experts per token.
 *
 * Source: DeepSeek-V3 report, section 3.2.2.
 */
import type { AskedRows, ExpertDispatch, TokensUnderWay } from "../../model/index.ts";
import {
  type Activation,
  type CopyPlan,
  cast,
  combine,
  type DispatchPlan,
  type Dtype,
  type ExpertAnswers,
  emptyHeader,
  expertLoad,
  gatherRows,
  planCopies,
  planTensors,
  sourceOf,
  spreadToRows,
  type Tensor,
  type TileFormat,
  Tiles,
  tensorsOf,
  tilesFrom,
  type UnitHeader,
} from "../../tensor/index.ts";
import type { Communicator, Pending, Receive, Send } from "../communicator/communicator.ts";

/** What a rank has on its way between `post` and `answered`, by rank of the group. */
interface Crossing {
  readonly plan: DispatchPlan;
  readonly copies: CopyPlan;
  /** What the other ranks ask of the experts here. */
  readonly headers: readonly UnitHeader[];
  readonly asked: readonly AskedRows[];
}

/** Gradients of rows on their way back to who sent the tokens. */
interface Returning {
  readonly pending: Pending;
  /** [T * K, D], in the order of the sender's plan */
  readonly rows: Tensor;
  /** [T * K] */
  readonly gates: Tensor;
}

export class ExpertExchange implements ExpertDispatch {
  readonly #communicator: Communicator;
  /** [P] i32: copies of tokens that this rank has sent to each; counted while it is there */
  readonly #sent: Tensor | null;

  /**
   * @param communicator  of the expert group: rank g holds experts g * E / P on
   * @param sent          [P] i32, to which copies of tokens are added by receiving rank
   */
  constructor(communicator: Communicator, sent: Tensor | null = null) {
    this.#communicator = communicator;
    this.#sent = sent;
  }

  post(input: Activation, plan: DispatchPlan, weights: Tensor): TokensUnderWay {
    const { size, device } = this.#communicator;
    const [tokens, topK] = [plan.slotRow.dim(0), plan.slotRow.dim(-1)];
    const copies = planCopies(plan.offsets, plan.rows, { units: size, tokens, topK });
    const experts = (plan.offsets.size - 1) / size;
    const headers = this.#ranks().map(() => emptyHeader(plan.offsets, experts));
    const announced = this.#communicator.exchange(
      copies.headers.map(({ all }, to) => ({ to, x: all })),
      headers.map(({ all }, from) => ({ from, y: all })),
    );
    if (this.#sent !== null) expertLoad({ ...plan, offsets: copies.bounds }, this.#sent);
    const payload = this.#gather(tensorsOf(input), copies);
    const gates = spreadToRows(weights, plan);
    announced.wait();

    const rows = tokens * Math.min(topK, experts);
    const places = headers.map(() => ({
      x: payload.map(({ shape, dtype }) => device.empty([tokens, ...shape.slice(1)], dtype)),
      tokens: device.empty([rows], "i32"),
      gates: device.empty([rows], gates.dtype),
    }));
    const sends: Send[] = [];
    const receives: Receive[] = [];
    for (const rank of this.#ranks()) {
      const [mine, theirs] = [rowsOf(plan, rank, experts), headers[rank]!];
      const [copied, place] = [{ offsets: copies.bounds, begin: rank, end: rank + 1 }, places[rank]!];
      for (const x of payload) sends.push({ to: rank, x, range: copied });
      for (const x of [copies.rowCopy, gates]) sends.push({ to: rank, x, range: mine });
      for (const y of place.x) receives.push({ from: rank, y, range: copiesOf(theirs) });
      for (const y of [place.tokens, place.gates]) receives.push({ from: rank, y, range: allRows(theirs) });
    }
    const pending = this.#communicator.exchange(sends, receives);
    const asked = places.map((place, rank): AskedRows => {
      const [codes, scales] = [place.x[0]!, place.x[1]];
      const { offsets, rows: count } = headers[rank]!;
      return {
        x: scales === undefined ? codes : new Tiles(codes, codes, scales, null),
        rows: { offsets, tokens: place.tokens, count },
        gates: place.gates,
      };
    });
    return this.#underWay({ plan, copies, headers, asked }, input, weights, pending);
  }

  #underWay(crossing: Crossing, input: Activation, weights: Tensor, pending: Pending): TokensUnderWay {
    const { device } = this.#communicator;
    const { plan, asked } = crossing;
    const source = sourceOf(input);
    const outputs = asked.flatMap(({ x, gates }) => [sourceOf(x), gates]);
    let returning: Returning | null = null;
    device.tape?.record({
      op: "dispatch",
      inputs: [source, weights],
      outputs,
      saved: planTensors(plan),
      inputGrad: () => {
        if (returning === null) return [null, null];
        const { pending: arriving, rows, gates } = returning;
        arriving.wait();
        const dx = combine(rows, plan, null, null, rows.dtype);
        const dWeights = gatherRows(gates, plan.slotRow.reshape(-1)).reshape(...weights.shape);
        rows.dispose();
        gates.dispose();
        return [dx, dWeights];
      },
    });
    return {
      arrived: () => {
        pending.wait();
        device.tape?.record({
          op: "arrive",
          inputs: outputs,
          outputs,
          saved: [plan.offsets, ...crossing.headers.map(({ all }) => all)],
          inputGrad: (...grads) => {
            returning = this.#sendBack(crossing, grads);
            // They travel on: what was posted last is handed to what was posted first.
            return grads;
          },
        });
        return asked;
      },
      answered: (answers, shared, gradient, dtype) =>
        this.#answered(crossing, weights, { answers, shared, gradient, dtype }),
    };
  }

  #answered(
    { plan, copies, headers }: Crossing,
    weights: Tensor,
    { answers, shared, gradient, dtype }: Answered,
  ): Tensor {
    const { device } = this.#communicator;
    const experts = (plan.offsets.size - 1) / this.#communicator.size;
    const [R, D] = [plan.rows.size, answers[0]!.answers.dim(-1)];
    using own = device.temporary([R, D], dtype);
    this.#communicator
      .exchange(
        answers.map(({ answers: x }, to) => ({ to, x, range: allRows(headers[to]!) })),
        this.#ranks().map((from) => ({ from, y: own, range: rowsOf(plan, from, experts) })),
      )
      .wait();
    const y = combine(own, plan, weights, shared, dtype);
    device.tape?.record({
      op: "answer",
      inputs: [...answers.flatMap(({ answers: rows, scales }) => [rows, scales]), shared],
      outputs: [y],
      saved: [copies.tokens, copies.bounds, ...headers.map(({ all }) => all)],
      inputGrad: (dy) => {
        if (dy === null) return [...answers.flatMap(() => [null, null]), null];
        const dShared = shared === null ? null : cast(dy, shared.dtype);
        return [...this.#sendGradient(dy, gradient, copies, headers).flat(), dShared];
      },
    });
    return y;
  }

  /** Sends the gradient of each token, once, to the ranks that answered it; returns what came, by rank. */
  #sendGradient(
    dy: Tensor,
    gradient: TileFormat | null,
    copies: CopyPlan,
    headers: readonly UnitHeader[],
  ): readonly (readonly (Tensor | null)[])[] {
    const { device } = this.#communicator;
    const payload = this.#gather(gradient === null ? [dy] : tilesFrom(dy, gradient).tensors, copies);
    const came = headers.map(() =>
      payload.map(({ shape, dtype }) => device.empty([dy.dim(0), ...shape.slice(1)], dtype)),
    );
    const sends = this.#ranks().flatMap((to) =>
      payload.map((x) => ({ to, x, range: { offsets: copies.bounds, begin: to, end: to + 1 } })),
    );
    const receives = came.flatMap((parts, from) =>
      parts.map((y) => ({ from, y, range: copiesOf(headers[from]!) })),
    );
    this.#communicator.exchange(sends, receives).wait();
    return came.map(([codes, scales]) => [codes!, scales ?? null]);
  }

  /** @param grads  by rank: of the rows that its tokens make here, and of their gates */
  #sendBack({ plan, headers }: Crossing, grads: readonly (Tensor | null)[]): Returning | null {
    const { device, size } = this.#communicator;
    const experts = (plan.offsets.size - 1) / size;
    const [first, firstGate] = [grads[0], grads[1]];
    // All ranks have gradients, or none has: they run the same model.
    if (first == null || firstGate == null) return null;
    const R = plan.rows.size;
    const rows = device.temporary([R, first.dim(-1)], first.dtype);
    const gates = device.temporary([R], firstGate.dtype);
    const sends: Send[] = [];
    const receives: Receive[] = [];
    for (const rank of this.#ranks()) {
      for (const x of [grads[2 * rank]!, grads[2 * rank + 1]!]) {
        sends.push({ to: rank, x, range: allRows(headers[rank]!) });
      }
      for (const y of [rows, gates]) receives.push({ from: rank, y, range: rowsOf(plan, rank, experts) });
    }
    return { pending: this.#communicator.exchange(sends, receives), rows, gates };
  }

  /** Copies of rows, in the order in which they are sent. */
  #gather(tensors: readonly Tensor[], { tokens, bounds }: CopyPlan): readonly Tensor[] {
    const { size } = this.#communicator;
    return tensors.map((tensor) => gatherRows(tensor, tokens, bounds.rows(size, size + 1)));
  }

  #ranks(): readonly number[] {
    return Array.from({ length: this.#communicator.size }, (_, rank) => rank);
  }
}

interface Answered {
  readonly answers: readonly ExpertAnswers[];
  readonly shared: Tensor | null;
  readonly gradient: TileFormat | null;
  readonly dtype: Dtype;
}

/** Rows of the sender's plan that belong to a rank's experts. */
function rowsOf({ offsets }: DispatchPlan, rank: number, experts: number): NonNullable<Send["range"]> {
  return { offsets, begin: rank * experts, end: (rank + 1) * experts };
}

/** Rows that a sender's tokens make here. */
function allRows({ offsets }: UnitHeader): NonNullable<Send["range"]> {
  return { offsets, begin: 0, end: offsets.size - 1 };
}

/** Tokens that a sender has sent here. */
function copiesOf({ copies }: UnitHeader): NonNullable<Send["range"]> {
  return { offsets: copies, begin: 0, end: 1 };
}
