/**
 * The `count` candidates with the highest scores, ascending; between equal scores the lower index wins.
 *
 * A NaN ranks above everything. So it is chosen and reaches the loss, where the guard of the training
 * step sees it; ranked low it would only make an expert fall silent.
 */
export function topIndices(
  scores: ArrayLike<number>,
  candidates: readonly number[],
  count: number,
): readonly number[] {
  const rank = (i: number): number => (Number.isNaN(scores[i]!) ? Number.POSITIVE_INFINITY : scores[i]!);
  return candidates
    .toSorted((a, b) => {
      const [left, right] = [rank(a), rank(b)];
      return left === right ? a - b : right - left;
    })
    .slice(0, count)
    .sort((a, b) => a - b);
}

/** 0, 1, ... count - 1. */
export function firstIndices(count: number): readonly number[] {
  return Array.from({ length: count }, (_, i) => i);
}
