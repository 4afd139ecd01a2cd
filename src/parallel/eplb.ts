/**
 * EPLB: which experts get copies and which GPU holds what, so that the busiest GPU has little more to do than the mean.
 *
 * Hierarchical where expert groups divide over the nodes (prefill): groups are packed onto nodes, so that a token still
 * crosses to few of them; then copies are made and packed inside each node. Global otherwise (decode): all GPUs are one
 * pool. Greedy throughout, in float32 as released: which of two nearly equal loads wins depends on it.
 *
 * Source: DeepSeek-V3 report, section 3.4.1, and the released deepseek-ai/EPLB.
 */
import { ConfigError } from "../base/index.ts";

export interface ReplicaLayout {
  /** Slots for copies of experts; a multiple of `gpus`, at least one for each expert. */
  readonly replicas: number;
  /** Expert groups of the model (nGroup). */
  readonly groups: number;
  readonly nodes: number;
  readonly gpus: number;
}

/** Where the experts of one layer are. Slots are numbered through all GPUs, `replicas / gpus` on each. */
export interface ExpertPlacement {
  /** By slot: the expert whose copy it holds. */
  readonly expertOf: readonly number[];
  /** By expert: its slots, in the order in which its copies were made. */
  readonly slotsOf: readonly (readonly number[])[];
}

/** @param loads  by layer, by expert: tokens counted, or predicted */
export function placeExperts(
  loads: readonly (readonly number[])[],
  layout: ReplicaLayout,
): readonly ExpertPlacement[] {
  requireLayout(loads, layout);
  const isHierarchical = layout.groups % layout.nodes === 0;
  const { groups, nodes } = isHierarchical ? layout : { groups: 1, nodes: 1 };
  return loads.map((load) => placeLayer(Float32Array.from(load), { ...layout, groups, nodes }));
}

/** The load of each GPU if an expert's copies share its load evenly. */
export function gpuLoads(
  loads: readonly number[],
  { expertOf, slotsOf }: ExpertPlacement,
  gpus: number,
): readonly number[] {
  const slotsPerGpu = expertOf.length / gpus;
  return Array.from({ length: gpus }, (_, gpu) =>
    expertOf
      .slice(gpu * slotsPerGpu, (gpu + 1) * slotsPerGpu)
      .reduce((sum, expert) => sum + loads[expert]! / slotsOf[expert]!.length, 0),
  );
}

function placeLayer(loads: Float32Array, { replicas, groups, nodes, gpus }: ReplicaLayout): ExpertPlacement {
  const byNode = expertsByNode(loads, groups, nodes);
  const expertOf: number[] = [];
  const slotsOf: number[][] = Array.from({ length: loads.length }, () => []);
  const slotsPerNode = replicas / nodes;
  for (const [node, experts] of byNode.entries()) {
    const own = Float32Array.from(experts, (expert) => loads[expert]!);
    const { itemOf, counts } = replicate(own, slotsPerNode);
    const shares = Float32Array.from(itemOf, (item) => own[item]! / counts[item]!);
    const packs = balancedPacking(shares, gpus / nodes);
    for (const replica of packs.flat()) expertOf.push(experts[itemOf[replica]!]!);
    // Copies in the order in which they were made, which is that of the replicas.
    const slotOfReplica = new Map(packs.flat().map((replica, slot) => [replica, node * slotsPerNode + slot]));
    for (const [replica, item] of itemOf.entries())
      slotsOf[experts[item]!]!.push(slotOfReplica.get(replica)!);
  }
  return { expertOf, slotsOf };
}

/** Whole groups of experts for each node. */
function expertsByNode(loads: Float32Array, groups: number, nodes: number): readonly (readonly number[])[] {
  const size = loads.length / groups;
  const groupLoads = Float32Array.from({ length: groups }, (_, group) =>
    loads.subarray(group * size, (group + 1) * size).reduce((sum, load) => Math.fround(sum + load), 0),
  );
  return balancedPacking(groupLoads, nodes).map((pack) =>
    pack.flatMap((group) => Array.from({ length: size }, (_, offset) => group * size + offset)),
  );
}

/**
 * Puts items into packs of equal length: the heaviest first, each into the lightest pack that has room.
 *
 * @returns by pack: its items in the order in which they came
 */
export function balancedPacking(weights: Float32Array, packs: number): readonly (readonly number[])[] {
  const capacity = weights.length / packs;
  // One item in each: released so, without sorting, and a pack's weight is the same in any order.
  if (capacity === 1) return Array.from(weights, (_, item) => [item]);
  const items: number[][] = Array.from({ length: packs }, () => []);
  const packWeights = new Float32Array(packs);
  const heaviestFirst = Array.from(weights.keys()).sort((a, b) => weights[b]! - weights[a]! || a - b);
  for (const item of heaviestFirst) {
    let lightest = -1;
    for (let pack = 0; pack < packs; pack++) {
      const hasRoom = items[pack]!.length < capacity;
      if (hasRoom && (lightest < 0 || packWeights[pack]! < packWeights[lightest]!)) lightest = pack;
    }
    items[lightest]!.push(item);
    packWeights[lightest]! += weights[item]!;
  }
  return items;
}

/** One copy of each item, then one more of whichever has the heaviest copies, until there are `replicas`. */
function replicate(
  weights: Float32Array,
  replicas: number,
): { readonly itemOf: readonly number[]; readonly counts: readonly number[] } {
  const itemOf = Array.from(weights.keys());
  const counts = itemOf.map(() => 1);
  while (itemOf.length < replicas) {
    let heaviest = 0;
    let most = Number.NEGATIVE_INFINITY;
    for (const [item, weight] of weights.entries()) {
      const share = Math.fround(weight / counts[item]!);
      if (share > most) [heaviest, most] = [item, share];
    }
    itemOf.push(heaviest);
    counts[heaviest]!++;
  }
  return { itemOf, counts };
}

function requireLayout(loads: readonly (readonly number[])[], layout: ReplicaLayout): void {
  const { replicas, groups, nodes, gpus } = layout;
  const refuse = (what: string, why: string, fix: string) => {
    throw new ConfigError(`placement of experts: ${what}`, { why, fix, fields: { ...layout } });
  };
  for (const [name, value] of Object.entries({ replicas, groups, nodes, gpus })) {
    if (Number.isSafeInteger(value) && value >= 1) continue;
    refuse(`${name} is ${value}`, "it is counted", `give a whole number of ${name} from 1 on`);
  }
  const experts = loads[0]?.length ?? 0;
  if (experts === 0) refuse("there are no loads", "a layer has experts", "give the load of every expert");
  for (const [layer, load] of loads.entries()) {
    if (load.length !== experts) {
      const why = `layer 0 has ${experts} experts`;
      refuse(`layer ${layer} has ${load.length} loads`, why, "give a load for every expert of every layer");
    }
    const expert = load.findIndex((value) => !Number.isFinite(value) || value < 0);
    if (expert >= 0) {
      const what = `the load of expert ${expert} in layer ${layer} is ${load[expert]}`;
      refuse(what, "loads are counts of tokens", "give a finite number from 0 on");
    }
  }
  if (replicas < experts) {
    refuse(
      `${replicas} replicas for ${experts} experts`,
      "every expert needs one",
      `give at least ${experts}`,
    );
  }
  if (replicas % gpus !== 0) {
    const fix = `give ${Math.ceil(replicas / gpus) * gpus} replicas`;
    refuse(`${replicas} replicas on ${gpus} GPUs`, "every GPU has as many slots as the others", fix);
  }
  if (experts % groups !== 0) {
    refuse(`${experts} experts in ${groups} groups`, "groups are of one size", "give a divisor as groups");
  }
  // Groups that do not divide over the nodes make one pool of all GPUs: nodes mean nothing then.
  if (groups % nodes === 0 && gpus % nodes !== 0) {
    refuse(`${gpus} GPUs on ${nodes} nodes`, "nodes are of one size", `give a multiple of ${nodes} as gpus`);
  }
}
