/** What the first rank does alone while the others wait: reading, writing, evaluating. */
import type { Communicator } from "./communicator.ts";
import { broadcastJson } from "./json.ts";

/** How often those who wait are told to go on waiting: well within the time after which a message counts as lost. */
const BEAT_MS = 60_000;

/** A value of the first rank, on its way to the others. */
type Word<T> =
  | { readonly kind: "wait" }
  | { readonly kind: "done"; readonly value: T }
  | { readonly kind: "left" };

/**
 * Runs `task` on the first rank; however long it takes, all others wait for what it returns.
 *
 * Not for tasks that exchange messages themselves.
 *
 * @returns  what JSON can write; null on the others if the task throws, which the first rank does itself
 */
export async function firstAlone<T>(
  communicator: Communicator,
  task: () => Promise<T>,
  beatMs: number = BEAT_MS,
): Promise<T | null> {
  return communicator.rank === 0 ? tellAll(communicator, task, beatMs) : hearFirst<T>(communicator);
}

/** What the first rank returns from the task of its `firstAlone`; null if that throws. */
export async function hearFirst<T>(communicator: Communicator): Promise<T | null> {
  for (;;) {
    const word = await broadcastJson<Word<T>>(communicator, { kind: "wait" }, 0);
    if (word.kind === "done") return word.value;
    if (word.kind === "left") return null;
  }
}

async function tellAll<T>(communicator: Communicator, task: () => Promise<T>, beatMs: number): Promise<T> {
  const say = async (word: Word<T>): Promise<void> => {
    await broadcastJson(communicator, word, 0);
  };
  const working = task().then(
    (value) => ({ value, error: null }),
    (error: unknown) => ({ value: null, error: { error } }),
  );
  for (;;) {
    const outcome = await within(working, beatMs);
    if (outcome === null) {
      await say({ kind: "wait" });
      continue;
    }
    if (outcome.error !== null) {
      // Where the others are gone already, the reason is still this one.
      await say({ kind: "left" }).catch(() => undefined);
      throw outcome.error.error;
    }
    await say({ kind: "done", value: outcome.value as T });
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
