/**
 * How data-parallel ranks share a step: each computes some of the blocks of micro-batches, every weight's gradient is
 * summed at its owner, and what follows from it goes to all.
 *
 * The owner adds the ranks' sums by the tree that goes on where their own ended, so the bits are those of one process.
 * Of experts that ranks share, a rank has a sum for each sender: the tree goes on over the senders, which are neighbours
 * among the data-parallel ranks. Under DualPipe the next leaf after a sender's is the same sender's for the other
 * direction, which lies at the mirrored rank, so all senders' sums go to the owner one by one.
 * With ZeRO-1 the owner alone has the weight's moments and average, updates it, and sends the new weight; without, it
 * sends the summed gradient and all update.
 *
 * Source: DeepSeek-V3 report, section 3.2; Rajbhandari et al., "ZeRO" (2020), stage 1, with whole tensors.
 */
import type { ExpertWeights } from "../model/index.ts";
import {
  addByTree,
  assignShare,
  type Communicator,
  type Held,
  type Layout,
  type Pending,
  type PipelineLayout,
  type Sharing,
  shareOfRank,
} from "../parallel/index.ts";
import { copyInto, fill, type Parameter, type Tensor } from "../tensor/index.ts";

/** The ranks that share a run's steps, as one of them sees it. */
export interface Team {
  readonly communicator: Communicator;
  /** Moments and averages lie at the owner of a weight only. */
  readonly zero1: boolean;
  /** How the layers are cut; absent where every rank has all of them. */
  readonly pipeline?: PipelineLayout;
  /** Neighbours that share the routed experts; 1 or absent where each has all of them. */
  readonly ep?: number;
  /** Between nodes of so many ranks tokens cross once; null or absent where ranks send to one another straight. */
  readonly ranksPerNode?: number | null;
}

/**
 * @param communicator  of all ranks of the run
 * @param ranksPerNode  null where the ranks that share experts send to one another straight
 */
export function teamFor(
  communicator: Communicator,
  { dp, ep, pp, schedule, zero1 }: Layout,
  ranksPerNode: number | null = null,
): Team {
  const team = { communicator, zero1, ep, ranksPerNode };
  return pp === 1 ? team : { ...team, pipeline: { dp, pp, schedule } };
}

/** Gradients whose messages are under way together: the more, the more memory for what arrives. */
const BUCKET_BYTES = 2 ** 25;

/** Indices of some parameters; while their sums are formed, the next bucket's messages travel. */
type Bucket = readonly number[];

interface Posted {
  readonly bucket: Bucket;
  readonly pending: Pending;
  /** By parameter that this rank owns: what each other rank sends, by rank. */
  readonly received: ReadonlyMap<number, ReadonlyMap<number, readonly Tensor[]>>;
}

export interface SharedOptions {
  /** Those of the parameters that are weights of the routed experts. */
  readonly experts?: readonly ExpertWeights[];
  /** Neighbouring ranks that stand for one data-parallel rank: under DualPipe one for each direction. */
  readonly directions?: number;
}

export class DataParallel {
  readonly communicator: Communicator;
  readonly zero1: boolean;
  readonly #sharing: Sharing;
  readonly #parameters: readonly Parameter[];
  readonly #experts: readonly ExpertWeights[];
  /** By parameter. */
  readonly #held: readonly Held[];
  /** By parameter: the gradients here that its owner adds, each a sum over neighbouring blocks. */
  readonly #leaves: readonly (readonly Tensor[])[];
  readonly #buckets: readonly Bucket[];

  /** @param communicator  of all that have some of the parameters, in the order of the blocks that they compute */
  constructor(
    { communicator, zero1, ep = 1 }: Pick<Team, "communicator" | "zero1" | "ep">,
    parameters: readonly Parameter[],
    { experts = [], directions = 1 }: SharedOptions = {},
  ) {
    this.communicator = communicator;
    this.zero1 = zero1;
    this.#sharing = { ranks: communicator.size, ep, directions };
    this.#parameters = parameters;
    this.#experts = experts;
    const shares = parameters.map((parameter) => ({
      bytes: parameter.master.storage.bytes,
      isRouted: experts.some(({ weight }) => weight === parameter),
    }));
    this.#held = assignShare(shares, this.#sharing, shareOfRank(this.#sharing, communicator.rank));
    this.#leaves = parameters.map((parameter) => {
      const senders = experts.find(({ weight }) => weight === parameter)?.bySender ?? [];
      return directions === 1 ? [parameter.grad!] : [parameter, ...senders.slice(1)].map(({ grad }) => grad!);
    });
    this.#buckets = bucketsOf(this.#leaves);
  }

  owns(index: number): boolean {
    return this.ownerOf(index) === this.communicator.rank;
  }

  /** The owner of a parameter, a rank of the communicator. */
  ownerOf(index: number): number {
    return this.#held[index]!.owner;
  }

  /** Sums each gradient at its owner. What other ranks hold of it is a part only. */
  reduceGradients(): void {
    // Without directions the senders of a rank are a subtree.
    if (this.#sharing.directions === 1)
      for (const { bySender } of this.#experts) addByTree(bySender.map(({ grad }) => grad!));
    let before: Posted | null = null;
    for (const bucket of this.#buckets) {
      const posted = this.#post(bucket);
      if (before !== null) this.#sum(before);
      before = posted;
    }
    if (before !== null) this.#sum(before);
    for (const { bySender } of this.#experts) for (const { grad } of bySender.slice(1)) fill(grad!, 0);
  }

  /** Before an update that all ranks make: gives all of them the sums. */
  spreadGradients(): void {
    this.#spread(this.#parameters.map(({ grad }) => grad!));
  }

  /** After an update that the owners made: gives all ranks the weights, and clears gradients that nobody has used up. */
  spreadWeights(): void {
    this.#spread(this.#parameters.map(({ master }) => master));
    for (const [i, parameter] of this.#parameters.entries()) {
      if (this.owns(i)) continue;
      parameter.repack();
      fill(parameter.grad!, 0);
    }
  }

  #post(bucket: Bucket): Posted {
    const received = new Map<number, ReadonlyMap<number, readonly Tensor[]>>();
    for (const i of bucket) {
      if (!this.owns(i)) continue;
      const make = ({ device, shape, dtype }: Tensor): Tensor => device.temporary(shape, dtype);
      const parts = this.#others(i).map((from) => [from, this.#leaves[i]!.map(make)] as const);
      received.set(i, new Map(parts));
    }
    const sends = bucket
      .filter((i) => !this.owns(i))
      .flatMap((i) => this.#leaves[i]!.map((x) => ({ to: this.ownerOf(i), x })));
    const receives = [...received.values()].flatMap((parts) =>
      [...parts].flatMap(([from, leaves]) => leaves.map((y) => ({ from, y }))),
    );
    return { bucket, pending: this.communicator.exchange(sends, receives), received };
  }

  #sum({ pending, received }: Posted): void {
    const { rank } = this.communicator;
    pending.wait();
    for (const [i, parts] of received) {
      const grad = this.#parameters[i]!.grad!;
      const sums = this.#inTree(i, (holder) => (holder === rank ? this.#leaves[i]! : parts.get(holder)!));
      addByTree(sums);
      if (sums[0] !== grad) copyInto(sums[0]!, grad);
      for (const part of [...parts.values()].flat()) part.dispose();
    }
  }

  /** All holders' leaves in the order of their blocks: by data-parallel rank, which is a sender, then by direction. */
  #inTree(index: number, leavesOf: (holder: number) => readonly Tensor[]): readonly Tensor[] {
    const { directions } = this.#sharing;
    const { holders } = this.#held[index]!;
    return Array.from({ length: holders.length / directions }, (_, group) => {
      const mirrored = holders.slice(group * directions, (group + 1) * directions).map(leavesOf);
      return mirrored[0]!.flatMap((_, sender) => mirrored.map((leaves) => leaves[sender]!));
    }).flat();
  }

  /** Sends what each parameter's owner holds of it to all other ranks. */
  #spread(tensors: readonly Tensor[]): void {
    const indices = [...tensors.keys()];
    const sends = indices
      .filter((i) => this.owns(i))
      .flatMap((i) => this.#others(i).map((to) => ({ to, x: tensors[i]! })));
    const receives = indices
      .filter((i) => !this.owns(i))
      .map((i) => ({ from: this.ownerOf(i), y: tensors[i]! }));
    this.communicator.exchange(sends, receives).wait();
  }

  /** The other ranks that have a parameter. */
  #others(index: number): readonly number[] {
    return this.#held[index]!.holders.filter((rank) => rank !== this.communicator.rank);
  }
}

function bucketsOf(leaves: readonly (readonly Tensor[])[]): readonly Bucket[] {
  const buckets: number[][] = [];
  let filled = Number.POSITIVE_INFINITY;
  for (const [i, tensors] of leaves.entries()) {
    const bytes = tensors.reduce((sum, { storage }) => sum + storage.bytes, 0);
    if (filled + bytes > BUCKET_BYTES) {
      buckets.push([]);
      filled = 0;
    }
    buckets.at(-1)!.push(i);
    filled += bytes;
  }
  return buckets;
}
