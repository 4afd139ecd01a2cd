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
