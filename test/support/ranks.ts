/** Several ranks in one process, for tests: both backends, short time-outs, disposed whatever happens. */
import { type Communicator, everyRank, inProcess } from "../../src/parallel/index.ts";
import { nativeIsMissing } from "./native.ts";

export type RankBackend = "reference" | "native";

export const rankBackends: readonly RankBackend[] = nativeIsMissing ? ["reference"] : ["reference", "native"];

export interface RankOptions {
  readonly timeoutSeconds?: number;
  readonly threads?: number;
}

export function makeRanks(
  backend: RankBackend,
  ranks: number,
  { timeoutSeconds = 60, threads = 2 }: RankOptions = {},
): readonly Communicator[] {
  return inProcess(ranks, { backend, limitBytes: 2 ** 28, threads, timeoutSeconds });
}

export async function disposeRanks(communicators: readonly Communicator[]): Promise<void> {
  await Promise.all(communicators.map(({ device }) => device.dispose()));
}

/** What `body` returns on each rank. */
export async function onRanks<T>(
  backend: RankBackend,
  ranks: number,
  body: (communicator: Communicator) => Promise<T>,
  options?: RankOptions,
): Promise<T[]> {
  const communicators = makeRanks(backend, ranks, options);
  try {
    return await everyRank(communicators, body);
  } finally {
    await disposeRanks(communicators);
  }
}

/** What each rank's body threw; null where it did not. */
export async function errorsOnRanks(
  communicators: readonly Communicator[],
  body: (communicator: Communicator) => Promise<unknown>,
): Promise<(Error | null)[]> {
  try {
    const settled = await Promise.allSettled(communicators.map(body));
    return settled.map((one) => (one.status === "rejected" ? (one.reason as Error) : null));
  } finally {
    await disposeRanks(communicators);
  }
}
