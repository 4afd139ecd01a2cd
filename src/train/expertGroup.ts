/** The ranks that share the routed experts with this one: what of them it has, and how tokens reach the others'. */
import { ConfigError } from "../base/index.ts";
import type { ExpertDispatch, ExpertShare } from "../model/index.ts";
import {
  checkExperts,
  EXCHANGE_TAGS,
  type ExchangeTags,
  ExpertExchange,
  TwoHopExchange,
} from "../parallel/index.ts";
import type { TrainConfig } from "./config.ts";
import type { Team } from "./dataParallel.ts";

export interface ExpertGroup {
  readonly share: ExpertShare;
  /** @param tags  where exchanges of several micro-batches are built side by side, other ones for each */
  dispatch(tags?: ExchangeTags): ExpertDispatch;
}

/**
 * Neighbours of the run's ranks: the data-parallel ranks of one stage stand next to each other, so a group has the same
 * stages.
 *
 * @returns null where this rank has all experts
 * @throws {ConfigError} if the experts cannot be shared, or their numbers would depend on who has them
 */
export function expertGroup(
  { communicator, ep = 1, ranksPerNode = null }: Team,
  config: TrainConfig,
): ExpertGroup | null {
  if (ep === 1) return null;
  checkExperts({ ep }, config.model);
  requireSharedScales({ ep }, config);
  const first = Math.floor(communicator.rank / ep) * ep;
  const group = communicator.split(Array.from({ length: ep }, (_, i) => first + i));
  const count = config.model.nRoutedExperts / ep;
  return {
    share: { first: group.rank * count, count, senders: ep },
    dispatch: (tags = EXCHANGE_TAGS) =>
      ranksPerNode === null ? new ExpertExchange(group, tags) : new TwoHopExchange(group, ranksPerNode, tags),
  };
}

/** @throws {ConfigError} if experts on several ranks would need a scale that none of them can know */
export function requireSharedScales(
  { ep }: { readonly ep: number },
  { precision, fp8 }: Pick<TrainConfig, "precision" | "fp8">,
): void {
  if (ep === 1 || precision !== "fp8" || fp8.scaling !== "tensor") return;
  throw new ConfigError("one scale for a whole tensor cannot be had where experts lie on several ranks", {
    why: "the greatest magnitude of all experts' weights, and of what all are sent, is known to no rank",
    fix: "use --set fp8.scaling=tile, or ep=1",
    fields: { scaling: "tensor", ep },
  });
}
