/**
 * Dispatch of tokens to experts in two hops: over the slow network once per node, then inside the node.
 *
 * A token first goes to the rank with the sender's own number in every node that has an expert of it (one copy each,
 * none to the sender's node), and from there to the ranks of that node that hold its experts. The answers come back the
 * same ways, summed at each join. The router's group limit (topkGroup groups, one on each node) bounds the copies.
 *
 * Pure: which tokens go where follows from the experts they chose. Experts lie in blocks: rank r of R holds E / R.
 *
 * Source: DeepSeek-V3 report, section 3.2.2.
 */
import { ConfigError } from "../base/index.ts";

export interface ExpertLayout {
  readonly experts: number;
  readonly ranks: number;
  readonly ranksPerNode: number;
}

/** The experts that some tokens chose: `ids` is [T, topK], row by row. */
export interface ExpertChoices {
  readonly ids: ArrayLike<number>;
  readonly topK: number;
}

/** By receiving rank: the tokens that it is sent, ascending, as indices into the sender's. Those that stay are there too. */
export type Sends = readonly (readonly number[])[];

/** What a rank sends to the ranks with its own number on other nodes; its own node's tokens stay with it. */
export function firstHop(layout: ExpertLayout, rank: number, choices: ExpertChoices): Sends {
  const { ranksPerNode } = requireLayout(layout, rank, choices);
  const ownNumber = rank % ranksPerNode;
  return sends(layout, choices, (target) => nodeOf(layout, target) * ranksPerNode + ownNumber);
}

/** What a rank then hands on inside its node, of the tokens that reached it. Choices on other nodes are not its business. */
export function secondHop(layout: ExpertLayout, rank: number, choices: ExpertChoices): Sends {
  requireLayout(layout, rank, choices);
  const node = nodeOf(layout, rank);
  return sends(layout, choices, (target) => (nodeOf(layout, target) === node ? target : null));
}

/** @param via  the rank that gets a token if `target` has an expert of it; null for none */
function sends(
  layout: ExpertLayout,
  { ids, topK }: ExpertChoices,
  via: (target: number) => number | null,
): Sends {
  const tokensTo: number[][] = Array.from({ length: layout.ranks }, () => []);
  const perRank = layout.experts / layout.ranks;
  for (let index = 0; index < ids.length; index++) {
    const token = Math.floor(index / topK);
    const receiver = via(Math.floor(ids[index]! / perRank));
    // Several experts behind one rank share a copy.
    if (receiver !== null && tokensTo[receiver]!.at(-1) !== token) tokensTo[receiver]!.push(token);
  }
  return tokensTo;
}

/** Copies of tokens that the dispatch of one rank's tokens makes; the combine sends as many back. */
export interface DispatchTraffic {
  readonly tokens: number;
  /** Over the network between nodes: first hops. */
  readonly interNode: number;
  /** Inside nodes: second hops that do not stay. */
  readonly intraNode: number;
  /** Pairs of a token and a node, or a rank, with an expert of it; the sender's own count. */
  readonly nodesReached: number;
  readonly ranksReached: number;
  /** Between nodes if every rank were sent its copy directly. */
  readonly interNodeDirect: number;
}

export function dispatchTraffic(layout: ExpertLayout, rank: number, choices: ExpertChoices): DispatchTraffic {
  const traffic = { interNode: 0, intraNode: 0, nodesReached: 0, ranksReached: 0, interNodeDirect: 0 };
  for (const [via, tokens] of firstHop(layout, rank, choices).entries()) {
    if (tokens.length === 0) continue;
    traffic.nodesReached += tokens.length;
    if (via !== rank) traffic.interNode += tokens.length;
    for (const [target, handed] of secondHop(layout, via, chosenBy(tokens, choices)).entries()) {
      traffic.ranksReached += handed.length;
      if (target !== via) traffic.intraNode += handed.length;
      if (nodeOf(layout, target) !== nodeOf(layout, rank)) traffic.interNodeDirect += handed.length;
    }
  }
  return { tokens: choices.ids.length / choices.topK, ...traffic };
}

/** The choices of some of the tokens: what arrives with them. */
export function chosenBy(tokens: readonly number[], { ids, topK }: ExpertChoices): ExpertChoices {
  const chosen = new Int32Array(tokens.length * topK);
  for (const [row, token] of tokens.entries()) {
    for (let k = 0; k < topK; k++) chosen[row * topK + k] = ids[token * topK + k]!;
  }
  return { ids: chosen, topK };
}

function nodeOf({ ranksPerNode }: ExpertLayout, rank: number): number {
  return Math.floor(rank / ranksPerNode);
}

function requireLayout(layout: ExpertLayout, rank: number, { ids, topK }: ExpertChoices): ExpertLayout {
  const { experts, ranks, ranksPerNode } = layout;
  const refuse = (what: string, why: string, fix: string) => {
    throw new ConfigError(`dispatch: ${what}`, { why, fix, fields: { ...layout, rank, topK } });
  };
  for (const [name, value] of Object.entries({ ...layout, topK })) {
    if (Number.isSafeInteger(value) && value >= 1) continue;
    refuse(`${name} is ${value}`, "it is counted", `give a whole number of ${name} from 1 on`);
  }
  if (experts % ranks !== 0) {
    refuse(
      `${experts} experts on ${ranks} ranks`,
      "every rank holds as many",
      `use a divisor of ${experts} as ranks`,
    );
  }
  if (ranks % ranksPerNode !== 0) {
    const fix = `use a divisor of ${ranks} as ranks of a node`;
    refuse(`${ranks} ranks, ${ranksPerNode} of them on a node`, "nodes are of one size", fix);
  }
  if (!Number.isSafeInteger(rank) || rank < 0 || rank >= ranks) {
    refuse(`there is no rank ${rank}`, `ranks are 0 to ${ranks - 1}`, "give one of them");
  }
  if (ids.length % topK !== 0) {
    refuse(
      `${ids.length} choices are no rows of ${topK}`,
      "every token chooses topK experts",
      "give whole rows",
    );
  }
  for (let index = 0; index < ids.length; index++) {
    const expert = ids[index]!;
    if (Number.isSafeInteger(expert) && expert >= 0 && expert < experts) continue;
    const what = `token ${Math.floor(index / topK)} chose expert ${expert}`;
    refuse(what, `experts are 0 to ${experts - 1}`, "give the ids that the router chose");
  }
  return layout;
}
