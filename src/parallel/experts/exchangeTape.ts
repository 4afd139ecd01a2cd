/**
 * How an exchange with experts elsewhere stands on the tape: three entries, walked back in the other order.
 *
 *   forward    dispatch: post tokens       arrive: await them            answer: rows back, sum them
 *   backward   await rows, sum them        post rows' gradients          gradient of y to the experts
 *
 * What stands between dispatch and arrive (the shared expert) computes while messages travel, on both ways.
 */
import type { AskedRows, TokensUnderWay } from "../../model/index.ts";
import {
  type Activation,
  cast,
  type DispatchPlan,
  type ExpertAnswers,
  planTensors,
  sourceOf,
  type Tensor,
  type TileFormat,
  Tiles,
  tilesFrom,
  type UnitHeader,
} from "../../tensor/index.ts";
import type { Communicator } from "../communicator/communicator.ts";

/**
 * What its messages carry, to 255. The way there and the way back of two micro-batches may be built side by side, and
 * come in pieces by turns: messages of one tag match in the order of their posts, so each way has a tag of its own.
 */
export interface ExchangeTags {
  readonly forward: number;
  readonly backward: number;
}

export const EXCHANGE_TAGS: ExchangeTags = { forward: 0, backward: 1 };

/** What one kind of exchange does at each of its places; senders are ranks of the group. */
export interface ExchangeSteps {
  /** What the way back reads of all that has been done so far. */
  readonly tensors: readonly Tensor[];
  /** Awaits what was posted; what is asked if that is known only then. */
  arrive(): readonly AskedRows[] | null;
  /** Sends answers to who asked, and sums what comes for the own tokens. */
  answer(answers: readonly Tensor[], weights: Tensor, shared: Tensor | null, dtype: Tensor["dtype"]): Tensor;
  /**
   * Sends y's gradient to who answered.
   *
   * @param parts  [T, ...]: the gradient, or codes and scales of its tiles
   * @returns      by sender, in as many parts
   */
  sendGradient(parts: readonly Tensor[]): readonly (readonly Tensor[])[];
  /**
   * Begins to send back the gradients of rows and of their gates, by sender.
   *
   * @returns  what awaits and sums those of the own tokens, onto `before` [T, D]: dx, and the gates' by slot [T * K]
   */
  sendBack(
    rows: readonly Tensor[],
    gates: readonly Tensor[],
  ): (before: Tensor | null) => { readonly dx: Tensor; readonly dSlots: Tensor };
}

export interface Asking {
  readonly input: Activation;
  readonly plan: DispatchPlan;
  readonly weights: Tensor;
  /** By sender; null where it is known only when tokens have arrived. */
  readonly asked: readonly AskedRows[] | null;
}

export function recordExchange(
  { device, size }: Communicator,
  { input, plan, weights, asked: known }: Asking,
  steps: ExchangeSteps,
): TokensUnderWay {
  // What travels on the tape from dispatch to arrive has no numbers: stand-ins carry its gradients.
  const source = sourceOf(input);
  const stands = Array.from({ length: 2 * size }, () => device.empty([0], "f32"));
  let ending: ReturnType<ExchangeSteps["sendBack"]> | null = null;
  const end = (before: Tensor | null): readonly (Tensor | null)[] => {
    if (ending === null) return [null, null];
    const { dx, dSlots } = ending(before);
    return [dx, dSlots.reshape(...weights.shape)];
  };
  device.tape?.record({
    op: "dispatch",
    inputs: [source, weights],
    outputs: stands,
    saved: [...planTensors(plan), ...steps.tensors],
    inputGrad: () => end(null),
    inputGradOnto: (before) => end(before),
  });
  return {
    arrived: () => {
      const asked = steps.arrive() ?? known ?? [];
      device.tape?.record({
        op: "arrive",
        inputs: stands,
        outputs: asked.flatMap(({ x, gates }) => [sourceOf(x), gates]),
        saved: [...planTensors(plan), ...steps.tensors],
        inputGrad: (...grads) => {
          const given = grads.filter((grad) => grad !== null);
          // All senders' rows have gradients, or none has: all ranks run the same model.
          if (given.length < grads.length) return grads.map(() => null);
          const of = (part: number): Tensor[] => given.filter((_, i) => i % 2 === part);
          ending = steps.sendBack(of(0), of(1));
          return given;
        },
      });
      return asked;
    },
    answered: (answers, shared, gradient, dtype) => {
      const y = steps.answer(
        answers.map((answer) => answer.answers),
        weights,
        shared,
        dtype,
      );
      recordAnswer({ answers, shared, gradient }, y, steps);
      return y;
    },
  };
}

interface Answered {
  readonly answers: readonly ExpertAnswers[];
  readonly shared: Tensor | null;
  readonly gradient: TileFormat | null;
}

function recordAnswer({ answers, shared, gradient }: Answered, y: Tensor, steps: ExchangeSteps): void {
  y.device.tape?.record({
    op: "answer",
    inputs: [...answers.flatMap(({ answers: rows, scales }) => [rows, scales]), shared],
    outputs: [y],
    saved: steps.tensors,
    inputGrad: (dy) => {
      if (dy === null) return [...answers.flatMap(() => [null, null]), null];
      const parts = gradient === null ? [dy] : tilesFrom(dy, gradient).tensors;
      const sent = steps.sendGradient(parts).flatMap(([codes, scales]) => [codes!, scales ?? null]);
      return [...sent, shared === null ? null : cast(dy, shared.dtype)];
    },
  });
}

/**
 * What each sender asks, from what has come of it.
 *
 * @param x  by part (numbers, or codes and scales), by sender
 */
export function askedRows(
  headers: readonly UnitHeader[],
  x: readonly (readonly Tensor[])[],
  tokens: readonly Tensor[],
  gates: readonly Tensor[],
): readonly AskedRows[] {
  return headers.map(({ offsets, rows: count }, sender) => {
    const [codes, scales] = [x[0]![sender]!, x[1]?.[sender]];
    return {
      x: scales === undefined ? codes : new Tiles(codes, codes, scales, null),
      rows: { offsets, tokens: tokens[sender]!, count },
      gates: gates[sender]!,
    };
  });
}
