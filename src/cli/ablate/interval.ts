/** Means of few runs and how far to trust them: Student's interval, which is wide where runs are few. */

export interface Estimate {
  readonly mean: number;
  /** Half the width of the 95 % interval; null of fewer than two values. */
  readonly halfWidth: number | null;
}

/** The two-sided 95 % quantile of Student's t by degrees of freedom, 1 to 30. */
const STUDENT = [
  ...[12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228],
  ...[2.201, 2.179, 2.16, 2.145, 2.131, 2.12, 2.11, 2.101, 2.093, 2.086],
  ...[2.08, 2.074, 2.069, 2.064, 2.06, 2.056, 2.052, 2.048, 2.045, 2.042],
] as const;

/**
 * Beyond the table, Cornish and Fisher's expansion around the normal's quantile, right to four decimals from 30 on.
 *
 * Source: Abramowitz and Stegun, "Handbook of mathematical functions", 26.7.5.
 */
function studentQuantile(degrees: number): number {
  const z = 1.959964;
  const first = (z ** 3 + z) / 4;
  const second = (5 * z ** 5 + 16 * z ** 3 + 3 * z) / 96;
  const third = (3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / 384;
  return STUDENT[degrees - 1] ?? z + first / degrees + second / degrees ** 2 + third / degrees ** 3;
}

export function estimate(values: readonly number[]): Estimate {
  const n = values.length;
  const mean = values.reduce((sum, value) => sum + value, 0) / n;
  if (n < 2) return { mean, halfWidth: null };
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (n - 1);
  return { mean, halfWidth: studentQuantile(n - 1) * Math.sqrt(variance / n) };
}

/** Of the differences seed by seed: what the seeds have in common falls out. */
export function estimateDifference(values: readonly number[], baseline: readonly number[]): Estimate {
  return estimate(values.map((value, i) => value - (baseline[i] ?? Number.NaN)));
}
