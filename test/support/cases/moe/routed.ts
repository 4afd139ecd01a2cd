/** Tokens as a router leaves them: affinities, chosen experts, and the rows of their slots. */

import { makeRandom, normals } from "../../random.ts";

export function affinities(T: number, E: number, seed: number): Float64Array {
  return normals(T * E, seed, 1.5).map((x) => 1 / (1 + Math.exp(-x)));
}

/** K different experts for each of T tokens, ascending. */
export function makeExpertIds(T: number, K: number, E: number, seed: number): number[] {
  const next = makeRandom(seed);
  return Array.from({ length: T }, () => {
    const rest = [...Array(E).keys()];
    const chosen = Array.from({ length: K }, () => rest.splice(Math.floor(next() * rest.length), 1)[0]!);
    return chosen.sort((a, b) => a - b);
  }).flat();
}

/** Slots in the order of a stable sort by expert. */
export function slotsByExpert(expertIds: readonly number[]): number[] {
  return [...expertIds.keys()].sort((a, b) => expertIds[a]! - expertIds[b]! || a - b);
}

/** The row of each slot in that order. */
export function makeSlotRows(expertIds: readonly number[]): number[] {
  const rows: number[] = [];
  for (const [row, slot] of slotsByExpert(expertIds).entries()) rows[slot] = row;
  return rows;
}
