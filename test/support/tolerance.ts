/**
 * How far two computations of the same thing may lie apart, by what makes them differ.
 *
 * Metric: relative Frobenius error |a - b| / |b|, and the largest element error over the largest
 * element. Both must hold.
 */
export interface Tolerance {
  readonly frobenius: number;
  readonly max: number;
}

export type ToleranceClass = keyof typeof tolerances;

export const tolerances: {
  readonly exact: Tolerance;
  readonly f32: Tolerance;
  readonly f32Long: Tolerance;
  readonly bf16: Tolerance;
  readonly bf16Twice: Tolerance;
  readonly bf16Operands: Tolerance;
  readonly f32Chain: Tolerance;
  readonly bf16Chain: Tolerance;
  readonly oracle: Tolerance;
} = {
  /** integers, copies, roundings that are defined bit for bit */
  exact: { frobenius: 0, max: 0 },
  /** f32 kernel against doubles rounded once: a few units in the last place */
  f32: { frobenius: 1e-6, max: 4e-6 },
  /** f32 sums of thousands of terms, exponentials of sums */
  f32Long: { frobenius: 5e-6, max: 3e-5 },
  /** stored as bf16: half a unit is 2^-9; two computations may round to neighbours */
  bf16: { frobenius: 3e-3, max: 8e-3 },
  /**
   * stored as bf16, after a product whose factor was rounded to bf16 on the way, as ds is in AMX registers: two
   * roundings, and a row of ds adds up to zero, so that dq may be smaller than its terms
   */
  bf16Twice: { frobenius: 6e-3, max: 1.6e-2 },
  /** f32 sums over operands that were rounded to bf16: here and there one rounds to its neighbour */
  bf16Operands: { frobenius: 3e-4, max: 2e-3 },
  /** fifteen products one after another, which magnify small singular directions up to 485 times (3.4445^5) */
  f32Chain: { frobenius: 1e-4, max: 5e-4 },
  /** the same with operands rounded to bf16 before each product */
  bf16Chain: { frobenius: 2e-2, max: 6e-2 },
  /** the reference in f64 against an independent oracle in f64 */
  oracle: { frobenius: 1e-12, max: 1e-11 },
};

export interface Distance {
  readonly frobenius: number;
  readonly max: number;
}

export function distance(actual: ArrayLike<number>, expected: ArrayLike<number>): Distance {
  let error = 0;
  let norm = 0;
  let maxError = 0;
  let maxValue = 0;
  for (let i = 0; i < expected.length; i++) {
    const e = expected[i]!;
    const a = actual[i]!;
    if (Object.is(a, e) || a === e) {
      if (Number.isFinite(e)) {
        norm += e * e;
        maxValue = Math.max(maxValue, Math.abs(e));
      }
      continue;
    }
    const d = Math.abs(a - e);
    error += Number.isFinite(d) ? d * d : Number.POSITIVE_INFINITY;
    norm += e * e;
    maxError = Math.max(maxError, Number.isFinite(d) ? d : Number.POSITIVE_INFINITY);
    maxValue = Math.max(maxValue, Math.abs(e));
  }
  if (actual.length !== expected.length)
    return { frobenius: Number.POSITIVE_INFINITY, max: Number.POSITIVE_INFINITY };
  const ratio = (x: number, y: number): number => (x === 0 ? 0 : x / (y || 1));
  return { frobenius: ratio(Math.sqrt(error), Math.sqrt(norm)), max: ratio(maxError, maxValue) };
}

/**
 * How much of an elementwise bound the worst element uses up: |a - e| / (atol + rtol |e|); at most 1 holds.
 *
 * A relative Frobenius error says nothing of one wrong small element in a large tensor; this does.
 */
export function worstElement(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  { rtol, atol }: { readonly rtol: number; readonly atol: number },
): number {
  if (actual.length !== expected.length) return Number.POSITIVE_INFINITY;
  let worst = 0;
  for (let i = 0; i < expected.length; i++) {
    const apart = Math.abs(actual[i]! - expected[i]!);
    if (apart === 0) continue;
    const used = apart / (atol + rtol * Math.abs(expected[i]!));
    worst = Number.isFinite(used) ? Math.max(worst, used) : Number.POSITIVE_INFINITY;
  }
  return worst;
}

export function isWithin(d: Distance, tolerance: Tolerance): boolean {
  return d.frobenius <= tolerance.frobenius && d.max <= tolerance.max;
}
