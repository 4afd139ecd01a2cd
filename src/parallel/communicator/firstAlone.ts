/** What the first rank does alone while the others wait: reading, writing, evaluating. */
import { CollectiveError } from "../../base/index.ts";
import type { Communicator } from "./communicator.ts";
import { broadcastJson } from "./json.ts";

/** How often those who wait are told to go on waiting: well within the time after which a message counts as lost. */
const BEAT_MS = 60_000;

/** A value of the first rank, on its way to the others. */
type Word<T, Q> =
  | { readonly kind: "wait" }
  | { readonly kind: "asked"; readonly question: Q }
  | { readonly kind: "done"; readonly value: T }
  | { readonly kind: "left" };

/**
 * Puts a question to all other ranks.
 *
 * @param take  enqueues the receive of what they answer, before anything else is said: a rank whose answer is not taken
 *              hears nothing more
 */
export type Ask<Q> = <A>(question: Q, take: () => A) => Promise<A>;

/**
 * Runs `task` on the first rank; however long it takes, all others wait for what it returns.
 *
 * Messages that the task needs of the others it asks for: what else it exchanged would meet the words to wait on.
 *
 * @param task    may ask the others, which answer in `hearFirst`
 * @returns       what JSON can write; null on the others if the task throws, which the first rank does itself
 */
export async function firstAlone<T, Q = never>(
  communicator: Communicator,
  task: (ask: Ask<Q>) => Promise<T>,
  beatMs: number = BEAT_MS,
): Promise<T | null> {
  return communicator.rank === 0 ? tellAll(communicator, task, beatMs) : hearFirst<T>(communicator);
}

/**
 * What the first rank returns from the task of its `firstAlone`; null if that throws.
 *
 * @param answer  enqueues what this rank has to say to a question
 */
export async function hearFirst<T, Q = never>(
  communicator: Communicator,
  answer: (question: Q) => void = () => undefined,
): Promise<T | null> {
  for (;;) {
    const word = await broadcastJson<Word<T, Q>>(communicator, { kind: "wait" }, 0);
    if (word.kind === "done") return word.value;
    if (word.kind === "left") return null;
    if (word.kind === "asked") answer(word.question);
  }
}

/** True for what a rank says only because the first one has failed, which will say why. */
export function isFirstsFailure(error: unknown): boolean {
  return error instanceof CollectiveError && error.fields["reason"] === FIRST_FAILED;
}

const FIRST_FAILED = "rank 0 failed: its own error is the cause";

/**
 * As `hearFirst`, for a rank that has nothing left to do without the first one.
 *
 * @throws {CollectiveError} if the first has thrown: its own error is the one to tell
 */
export async function followFirst<T, Q = never>(
  communicator: Communicator,
  answer?: (question: Q) => void,
): Promise<T> {
  const value = await hearFirst<T, Q>(communicator, answer);
  if (value !== null) return value;
  throw new CollectiveError(`rank 0 has failed, and rank ${communicator.rank} ends with it`, {
    why: "what rank 0 does alone (writing, evaluating) is part of every rank's run",
    fix: "look at rank 0: its own error is the cause",
    fields: { rank: communicator.rank, reason: FIRST_FAILED },
  });
}

async function tellAll<T, Q>(
  communicator: Communicator,
  task: (ask: Ask<Q>) => Promise<T>,
  beatMs: number,
): Promise<T> {
  // One word after another: each is two messages, and a question is followed by its answers.
  let last: Promise<unknown> = Promise.resolve();
  const say = <A>(word: Word<T, Q>, take: () => A): Promise<A> => {
    const said = last.then(async () => {
      await broadcastJson(communicator, word, 0);
      return take();
    });
    // What failed is told to whoever said it; the next word may still get through.
    last = said.catch(() => undefined);
    return said;
  };
  const nothing = (): void => undefined;
  const working = task((question, take) => say({ kind: "asked", question }, take)).then(
    (value) => ({ value, error: null }),
    (error: unknown) => ({ value: null, error: { error } }),
  );
  for (;;) {
    const outcome = await within(working, beatMs);
    if (outcome === null) {
      await say({ kind: "wait" }, nothing);
      continue;
    }
    if (outcome.error !== null) {
      // Where the others are gone already, the reason is still this one.
      await say({ kind: "left" }, nothing).catch(() => undefined);
      throw outcome.error.error;
    }
    await say({ kind: "done", value: outcome.value as T }, nothing);
    return outcome.value as T;
  }
}

/** What a promise resolves with, or null if that takes longer. */
function within<T>(promise: Promise<T>, milliseconds: number): Promise<T | null> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(null), milliseconds);
    void promise.then((value) => {
      clearTimeout(timer);
      resolve(value);
    });
  });
}
