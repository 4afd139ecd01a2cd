/** The work of the rank that owns the run's folder: the only one, or the first of many, which wait for it meanwhile. */
import { firstAlone } from "../parallel/index.ts";
import type { OpenRank } from "./openRanks.ts";
import type { Source, Wanted } from "./runState.ts";

/**
 * Runs the task of the first rank; the others wait for it in `followFirst`, however long it takes.
 *
 * @param task    is given how to ask the others for tensors: null if there are none
 * @param beatMs  how often those who wait are told to wait on
 * @returns       what the task returns, which goes to all: what JSON can write
 */
export async function onFirstRank<T>(
  { team }: Pick<OpenRank, "team">,
  task: (source: Source | null) => Promise<T>,
  beatMs?: number,
): Promise<T> {
  if (team === null) return task(null);
  const { communicator } = team;
  const told = await firstAlone<T, Wanted>(communicator, (ask) => task({ communicator, ask }), beatMs);
  // Null is what others hear of a task that throws; here it throws itself.
  return told as T;
}
