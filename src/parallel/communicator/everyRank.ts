/** Runs the ranks of one process side by side, so that they end together. */
import { CollectiveError } from "../../base/index.ts";
import type { Communicator } from "./communicator.ts";

/**
 * Calls `body` for every rank and resolves with what they return, in the order of the ranks.
 *
 * When one throws, the others are told at once instead of waiting for its messages, and when all have ended its error
 * is thrown: what the others say follows from it.
 */
export async function everyRank<T>(
  communicators: readonly Communicator[],
  body: (communicator: Communicator) => Promise<T>,
): Promise<T[]> {
  const errors: unknown[] = [];
  const results = await Promise.all(
    communicators.map(async (communicator): Promise<T | undefined> => {
      try {
        return await body(communicator);
      } catch (error) {
        errors.push(error);
        communicator.abort(error instanceof Error ? (error.message.split("\n")[0] ?? "") : String(error));
        return undefined;
      }
    }),
  );
  if (errors.length > 0) throw errors.find((error) => !isEcho(error)) ?? errors[0];
  return results as T[];
}

/** True for what a rank says only because another has failed. */
function isEcho(error: unknown): boolean {
  return error instanceof CollectiveError && /^rank \d+ failed: /.test(String(error.fields["reason"]));
}
