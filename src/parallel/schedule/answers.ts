/**
 * When a sender may wait for its messages without waiting for work that waits for it.
 *
 * A message certainly arrives once its receiver has sent something back in or after the action that reads it, for
 * which it posts its receive before it begins. To wait earlier could stop a pipeline: a warm-up runs ahead, and its
 * receiver reads only after answers that the sender has still to give.
 */
import { type Action, type Chunk, holderOf, type PipelinePlan, stageOf } from "./plan.ts";

/** What a chunk hands to its neighbour: its result forwards, its input's gradient backwards. */
export interface PipelineMessage {
  readonly kind: "activation" | "gradient";
  /** The chunk that sends. */
  readonly from: Chunk;
  /** The chunk that receives. */
  readonly to: Chunk;
  readonly sender: number;
  readonly receiver: number;
}

/** The chunk of an action that goes forwards, and the one that goes backwards. */
export function partsOf(action: Action): { readonly forward: Chunk | null; readonly backward: Chunk | null } {
  switch (action.kind) {
    case "forward":
      return { forward: action.chunk, backward: null };
    case "backward":
    case "backwardInput":
      return { forward: null, backward: action.chunk };
    case "overlapped":
      return action;
    case "backwardWeight":
      return { forward: null, backward: null };
  }
}

/** What an action of a rank sends, when it is done. */
export function sentBy(plan: PipelinePlan, rank: number, action: Action): readonly PipelineMessage[] {
  const { forward, backward } = partsOf(action);
  return [
    ...messages(plan, rank, forward, "activation", 1, "out"),
    ...messages(plan, rank, backward, "gradient", -1, "out"),
  ];
}

/** What an action of a rank needs, before it begins. */
export function neededBy(plan: PipelinePlan, rank: number, action: Action): readonly PipelineMessage[] {
  const { forward, backward } = partsOf(action);
  return [
    ...messages(plan, rank, forward, "activation", -1, "in"),
    ...messages(plan, rank, backward, "gradient", 1, "in"),
  ];
}

function messages(
  plan: PipelinePlan,
  rank: number,
  chunk: Chunk | null,
  kind: PipelineMessage["kind"],
  step: 1 | -1,
  way: "in" | "out",
): readonly PipelineMessage[] {
  if (chunk === null) return [];
  const other = holderOf(plan, stageOf(plan, { rank, chunk }) + step, chunk);
  if (other === null) return [];
  return way === "out"
    ? [{ kind, from: chunk, to: other.chunk, sender: rank, receiver: other.rank }]
    : [{ kind, from: other.chunk, to: chunk, sender: other.rank, receiver: rank }];
}

/**
 * For each action of a rank, the actions whose messages it can await once its own needs are there.
 *
 * Messages that nobody answers are in no list: they are awaited at the end of the step.
 */
export function answeredAt(plan: PipelinePlan, rank: number): readonly (readonly number[])[] {
  const own = plan.actions[rank]!;
  const answered = own.map((): number[] => []);
  const readAt = plan.actions.map((actions, receiver) => indexOfNeeds(plan, receiver, actions));
  const sentAt = plan.actions.map((actions, sender) => indexOfSent(plan, sender, actions));
  for (const [i, action] of own.entries()) {
    const read = sentBy(plan, rank, action).map((message) => ({
      receiver: message.receiver,
      at: readAt[message.receiver]!.get(keyOf(message))!,
    }));
    if (read.length === 0) continue;
    const isAnswered = (later: number): boolean =>
      read.every(
        ({ receiver, at }) =>
          (receiver === rank && later >= at) ||
          neededBy(plan, rank, own[later]!).some(
            (answer) => answer.sender === receiver && sentAt[receiver]!.get(keyOf(answer))! >= at,
          ),
      );
    for (let later = i + 1; later < own.length; later++) {
      if (!isAnswered(later)) continue;
      answered[later]!.push(i);
      break;
    }
  }
  return answered;
}

function indexOfNeeds(plan: PipelinePlan, rank: number, actions: readonly Action[]): Map<string, number> {
  return new Map(
    actions.flatMap((action, i) =>
      neededBy(plan, rank, action).map((message): [string, number] => [keyOf(message), i]),
    ),
  );
}

function indexOfSent(plan: PipelinePlan, rank: number, actions: readonly Action[]): Map<string, number> {
  return new Map(
    actions.flatMap((action, i) =>
      sentBy(plan, rank, action).map((message): [string, number] => [keyOf(message), i]),
    ),
  );
}

function keyOf({ kind, to, receiver }: PipelineMessage): string {
  return `${kind} ${receiver} ${to.module} ${to.direction} ${to.microBatch}`;
}
