/**
 * The known name that a misspelt one most likely meant.
 *
 * Names are compared as people confuse them: capitals, underscores and dashes do not count, a swap of two
 * neighbouring letters is one mistake.
 */

/**
 * Number of insertions, deletions, substitutions and swaps of neighbours between two strings, where no part is
 * edited twice ("optimal string alignment", the restricted form of the Damerau-Levenshtein distance).
 */
export function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const differs = a[i - 1] === b[j - 1] ? 0 : 1;
      let best = Math.min(last[j]! + 1, row[j - 1]! + 1, last[j - 1]! + differs);
      const isSwap = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      if (isSwap) best = Math.min(best, before[j - 2]! + 1);
      row.push(best);
    }
    before = last;
    last = row;
  }
  return last[b.length]!;
}

/**
 * The nearest of the known names, or undefined if none is near enough to be worth suggesting: more than a third
 * of the letters differ. Ties go to the name that comes first.
 */
export function nearestName(name: string, known: Iterable<string>): string | undefined {
  const wanted = bare(name);
  let nearest: string | undefined;
  let smallest = Number.POSITIVE_INFINITY;
  for (const candidate of known) {
    const other = bare(candidate);
    const distance = editDistance(wanted, other);
    const limit = Math.max(1, Math.floor(Math.max(wanted.length, other.length) / 3));
    if (distance <= limit && distance < smallest) {
      nearest = candidate;
      smallest = distance;
    }
  }
  return nearest;
}

function bare(name: string): string {
  return name.toLowerCase().replaceAll(/[_\-. ]/g, "");
}
