/** Rows of numbers over steps, made ready to draw. Pure. */

export interface Point {
  readonly x: number;
  readonly y: number;
}

/**
 * At most about `limit` points that keep every peak: of each stretch its smallest and its largest, in their order.
 */
export function thin(points: readonly Point[], limit: number): Point[] {
  if (points.length <= limit) return [...points];
  const stretch = Math.ceil(points.length / Math.floor(limit / 2));
  const kept: Point[] = [];
  for (let start = 0; start < points.length; start += stretch) {
    const part = points.slice(start, start + stretch);
    const low = part.reduce((least, point) => (point.y < least.y ? point : least));
    const high = part.reduce((most, point) => (point.y > most.y ? point : most));
    kept.push(...(low === high ? [low] : low.x < high.x ? [low, high] : [high, low]));
  }
  return kept;
}

/**
 * Each point as the mean of about `span` points around it: a trailing mean would lag behind a falling loss.
 *
 * Towards the beginning, where a loss falls steeply, the stretch shrinks on both sides alike and stays centred; at the
 * end only its later half is missing, because the last value is read as a number and must not be a single step's.
 */
export function smooth(points: readonly Point[], span: number): Point[] {
  const half = Math.floor(span / 2);
  const sums = [0];
  for (const { y } of points) sums.push(sums.at(-1)! + y);
  return points.map(({ x }, index) => {
    const start = Math.max(0, index - half);
    const end = Math.min(points.length, index + Math.min(half, index) + 1);
    return { x, y: (sums[end]! - sums[start]!) / (end - start) };
  });
}

/** Round numbers from `low` to `high`, both covered: steps of 1, 2 or 5 times a power of ten. */
export function ticks(low: number, high: number, count: number): number[] {
  // A range of rounding errors is a range of one value: its ticks would be told apart by the 16th digit.
  const size = Math.max(Math.abs(low), Math.abs(high));
  const range = high - low > 1e-9 * size ? high - low : size;
  const step = niceStep((range > 1e-300 ? range : 1) / count);
  const first = Math.floor(low / step + 1e-9);
  const last = Math.max(first + 1, Math.ceil(high / step - 1e-9));
  // A product and not a running sum: 0.1 added thirty times is not 3.
  return Array.from({ length: last - first + 1 }, (_, index) =>
    Number(((first + index) * step).toPrecision(12)),
  );
}

function niceStep(atLeast: number): number {
  const power = 10 ** Math.floor(Math.log10(atLeast));
  const factor = [1, 2, 5, 10].find((one) => one * power >= atLeast * (1 - 1e-9)) ?? 10;
  return factor * power;
}

/** `[0.1, 0.4, 0.2]` as `▁█▄`. */
export function sparkline(values: readonly number[]): string {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const levels = "▁▂▃▄▅▆▇█";
  const level = (value: number) => (high === low ? 0 : Math.round(((value - low) / (high - low)) * 7));
  return values.map((value) => levels[level(value)]!).join("");
}
