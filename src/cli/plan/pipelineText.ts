/** The simulated pipeline in letters: one line a rank, time from left to right. */
import type { Action, Simulation } from "../../parallel/index.ts";

const letters: Readonly<Record<Action["kind"], string>> = {
  forward: "F",
  backward: "B",
  backwardInput: "b",
  backwardWeight: "w",
  overlapped: "#",
};

export const pipelineLegend =
  "F forward, B backward, b its input part, w its weight part, # a pair of both, . idle";

/** @param width  columns for the whole step; a column shows what takes most of its time */
export function pipelineText({ spans }: Pick<Simulation, "spans">, width: number): string[] {
  const makespan = Math.max(...spans.map((list) => list.at(-1)?.end ?? 0));
  const digits = String(spans.length - 1).length;
  return spans.map((list, rank) => {
    const columns = Array.from({ length: width }, (_, column) => {
      const from = (column * makespan) / width;
      const to = ((column + 1) * makespan) / width;
      const shares: Record<string, number> = { ".": to - from };
      for (const { action, start, end } of list) {
        const shared = Math.min(end, to) - Math.max(start, from);
        if (shared <= 0) continue;
        const letter = letters[action.kind];
        shares[letter] = (shares[letter] ?? 0) + shared;
        shares["."]! -= shared;
      }
      return Object.entries(shares).reduce((most, one) => (one[1] > most[1] ? one : most))[0];
    });
    return `${String(rank).padStart(digits)} ${columns.join("")}`;
  });
}
