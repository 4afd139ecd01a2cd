/** Stretches of time as sets: what was under way at all, and what of it while something else was not. */

export interface Interval {
  readonly start: number;
  readonly end: number;
}

/** The same times as stretches that neither touch nor overlap, in order. */
export function union(intervals: readonly Interval[]): readonly Interval[] {
  const joined: { start: number; end: number }[] = [];
  for (const { start, end } of intervals.toSorted((a, b) => a.start - b.start)) {
    const last = joined.at(-1);
    if (end === start) continue;
    if (last !== undefined && start <= last.end) last.end = Math.max(last.end, end);
    else joined.push({ start, end });
  }
  return joined;
}

/** The times of the first set that are not in the second; both as `union` makes them. */
export function without(intervals: readonly Interval[], taken: readonly Interval[]): readonly Interval[] {
  const left: Interval[] = [];
  let next = 0;
  for (const { start, end } of intervals) {
    let from = start;
    while (next < taken.length && taken[next]!.end <= from) next++;
    for (let index = next; index < taken.length && taken[index]!.start < end; index++) {
      if (taken[index]!.start > from) left.push({ start: from, end: taken[index]!.start });
      from = Math.max(from, taken[index]!.end);
    }
    if (from < end) left.push({ start: from, end });
  }
  return left;
}

/** How long a set is; its stretches must not overlap. */
export function totalTime(intervals: readonly Interval[]): number {
  return intervals.reduce((sum, { start, end }) => sum + (end - start), 0);
}
