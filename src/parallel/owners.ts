/**
 * Who owns what: each whole tensor has one owner among the data-parallel ranks, and all come to about the same bytes.
 *
 * Whole tensors, because Muon makes a matrix orthogonal as a whole, and because then an update needs no message.
 */

/**
 * Largest first, each to the rank that has least so far; ties go to the earlier tensor and the lower rank.
 *
 * @param bytes  of each tensor
 * @returns      the owner of each, 0 to ranks - 1
 */
export function assignOwners(bytes: readonly number[], ranks: number): readonly number[] {
  const owners = bytes.map(() => 0);
  const held = Array.from({ length: ranks }, () => 0);
  // Sorting is stable: equal tensors stay in their order.
  for (const i of [...bytes.keys()].sort((a, b) => bytes[b]! - bytes[a]!)) {
    const owner = held.indexOf(Math.min(...held));
    owners[i] = owner;
    held[owner] = held[owner]! + bytes[i]!;
  }
  return owners;
}

/** How a group of ranks has copies of some tensors; the group stands in the order of the blocks that its ranks compute. */
export interface Sharing {
  /** Of the group. */
  readonly ranks: number;
  /** Data-parallel neighbours that share the routed experts. */
  readonly ep: number;
  /** Neighbours of the group that stand for one data-parallel rank: under DualPipe one for each direction. */
  readonly directions: number;
}

/** Of one tensor or of one share of it: ranks of the group. */
export interface Held {
  /** Those with a copy, ascending. */
  readonly holders: readonly number[];
  /** The one of them that sums its gradient; with ZeRO-1 the only one with its moments. */
  readonly owner: number;
}

/** The share of the experts that a rank of the group has. */
export function shareOfRank({ ep, directions }: Sharing, rank: number): number {
  return Math.floor(rank / directions) % ep;
}

/**
 * Who has and who owns each tensor: of the routed experts' a share lies at one rank of every `ep`, all else at all.
 *
 * @param tensors  with the bytes that one rank has of each
 * @param share    of the experts, 0 to ep - 1
 */
export function assignShare(
  tensors: readonly { readonly bytes: number; readonly isRouted: boolean }[],
  sharing: Sharing,
  share: number,
): readonly Held[] {
  const everyone = Array.from({ length: sharing.ranks }, (_, rank) => rank);
  const alike = everyone.filter((rank) => shareOfRank(sharing, rank) === share);
  const held = new Map<number, Held>();
  const assign = (
    isThere: (tensor: (typeof tensors)[number]) => boolean,
    holders: readonly number[],
  ): void => {
    const indices = [...tensors.keys()].filter((i) => isThere(tensors[i]!));
    const owners = assignOwners(
      indices.map((i) => tensors[i]!.bytes),
      holders.length,
    );
    for (const [at, i] of indices.entries()) held.set(i, { holders, owner: holders[owners[at]!]! });
  };
  if (sharing.ep === 1) assign(() => true, everyone);
  else {
    assign(({ isRouted }) => !isRouted, everyone);
    assign(({ isRouted }) => isRouted, alike);
  }
  return tensors.map((_, i) => held.get(i)!);
}
