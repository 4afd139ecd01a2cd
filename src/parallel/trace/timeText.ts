/** Times of one timeline in one unit, so that they can be compared at a glance. */

export interface TimeUnit {
  readonly name: "s" | "ms" | "µs";
  readonly perSecond: number;
}

/** @param length  seconds that the timeline spans */
export function timeUnit(length: number): TimeUnit {
  if (length >= 2) return { name: "s", perSecond: 1 };
  if (length >= 2e-3) return { name: "ms", perSecond: 1e3 };
  return { name: "µs", perSecond: 1e6 };
}

/** Four significant digits, without zeros at the end: `13.95 s`. */
export function timeText(seconds: number, { name, perSecond }: TimeUnit): string {
  return `${Number((seconds * perSecond).toPrecision(4))} ${name}`;
}
