/**
 * How data-parallel ranks share a step: each computes some of the blocks of micro-batches, every weight's gradient is
 * summed at its owner, and what follows from it goes to all.
 *
 * The owner adds the ranks' sums by the tree that goes on where their own ended, so the bits are those of one process.
 * With ZeRO-1 the owner alone has the weight's moments and average, updates it, and sends the new weight; without, it
 * sends the summed gradient and all update.
 *
 * Source: DeepSeek-V3 report, section 3.2; Rajbhandari et al., "ZeRO" (2020), stage 1, with whole tensors.
 */
import {
  addByTree,
  assignOwners,
  type Communicator,
  type Layout,
  type Pending,
  type PipelineLayout,
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
  return pp === 1
    ? { communicator, zero1, ep, ranksPerNode }
    : { communicator, zero1, pipeline: { dp, pp, schedule } };
}

/** Gradients whose messages are under way together: the more, the more memory for what arrives. */
const BUCKET_BYTES = 2 ** 25;

/** Indices of some parameters; while their sums are formed, the next bucket's messages travel. */
type Bucket = readonly number[];

interface Posted {
  readonly bucket: Bucket;
  readonly pending: Pending;
  /** By parameter that this rank owns: what each other rank sends, by rank. */
  readonly received: ReadonlyMap<number, ReadonlyMap<number, Tensor>>;
}

export class DataParallel {
  readonly communicator: Communicator;
  readonly zero1: boolean;
  /** The owner of each parameter. */
  readonly owners: readonly number[];
  readonly #parameters: readonly Parameter[];
  /** By parameter: the ranks that have it, ascending. */
  readonly #holders: readonly (readonly number[])[];
  readonly #buckets: readonly Bucket[];

  /** @param routed  those of the parameters that are shares of the routed experts */
  constructor(
    { communicator, zero1, ep = 1 }: Team,
    parameters: readonly Parameter[],
    routed: ReadonlySet<Parameter> = new Set(),
  ) {
    this.communicator = communicator;
    this.zero1 = zero1;
    this.#parameters = parameters;
    const everyone = Array.from({ length: communicator.size }, (_, rank) => rank);
    // The same experts lie at one rank of each group.
    const alike = everyone.filter((rank) => rank % ep === communicator.rank % ep);
    this.#holders = parameters.map((parameter) => (routed.has(parameter) ? alike : everyone));
    this.owners = ownersOf(parameters, this.#holders, [everyone, alike]);
    this.#buckets = bucketsOf(parameters);
  }

  owns(index: number): boolean {
    return this.owners[index] === this.communicator.rank;
  }

  /** Sums each gradient at its owner. What other ranks hold of it is a part only. */
  reduceGradients(): void {
    let before: Posted | null = null;
    for (const bucket of this.#buckets) {
      const posted = this.#post(bucket);
      if (before !== null) this.#sum(before);
      before = posted;
    }
    if (before !== null) this.#sum(before);
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
    const received = new Map<number, ReadonlyMap<number, Tensor>>();
    for (const i of bucket) {
      if (!this.owns(i)) continue;
      const grad = this.#parameters[i]!.grad!;
      const parts = this.#others(i).map(
        (from) => [from, grad.device.temporary(grad.shape, grad.dtype)] as const,
      );
      received.set(i, new Map(parts));
    }
    const sends = bucket
      .filter((i) => !this.owns(i))
      .map((i) => ({ to: this.owners[i]!, x: this.#parameters[i]!.grad! }));
    const receives = [...received.values()].flatMap((parts) => [...parts].map(([from, y]) => ({ from, y })));
    return { bucket, pending: this.communicator.exchange(sends, receives), received };
  }

  #sum({ pending, received }: Posted): void {
    const { rank } = this.communicator;
    pending.wait();
    for (const [i, parts] of received) {
      const grad = this.#parameters[i]!.grad!;
      const sums = this.#holders[i]!.map((r) => (r === rank ? grad : parts.get(r)!));
      addByTree(sums);
      if (sums[0] !== grad) copyInto(sums[0]!, grad);
      for (const part of parts.values()) part.dispose();
    }
  }

  /** Sends what each parameter's owner holds of it to all other ranks. */
  #spread(tensors: readonly Tensor[]): void {
    const indices = [...tensors.keys()];
    const sends = indices
      .filter((i) => this.owns(i))
      .flatMap((i) => this.#others(i).map((to) => ({ to, x: tensors[i]! })));
    const receives = indices
      .filter((i) => !this.owns(i))
      .map((i) => ({ from: this.owners[i]!, y: tensors[i]! }));
    this.communicator.exchange(sends, receives).wait();
  }

  /** The other ranks that have a parameter. */
  #others(index: number): readonly number[] {
    return this.#holders[index]!.filter((rank) => rank !== this.communicator.rank);
  }
}

/** Whole parameters to their holders, those of each group of holders by themselves. */
function ownersOf(
  parameters: readonly Parameter[],
  holders: readonly (readonly number[])[],
  groups: readonly (readonly number[])[],
): readonly number[] {
  const owners = new Map<number, number>();
  for (const group of groups) {
    const held = [...parameters.keys()].filter((i) => holders[i] === group);
    const bytes = held.map((i) => parameters[i]!.master.storage.bytes);
    for (const [at, place] of assignOwners(bytes, group.length).entries())
      owners.set(held[at]!, group[place]!);
  }
  return parameters.map((_, i) => owners.get(i)!);
}

function bucketsOf(parameters: readonly Parameter[]): readonly Bucket[] {
  const buckets: number[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const [i, { grad }] of parameters.entries()) {
    if (bytes + grad!.storage.bytes > BUCKET_BYTES) {
      buckets.push([]);
      bytes = 0;
    }
    buckets.at(-1)!.push(i);
    bytes += grad!.storage.bytes;
  }
  return buckets;
}
