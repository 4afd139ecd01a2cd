/** How free the event loop is: what a 10 ms timer gets while something else goes on. */

export interface Ticks {
  readonly perSecond: number;
  /** Times between two ticks in milliseconds: the longest, and what 99 of 100 do not exceed. */
  readonly largestGapMs: number;
  readonly p99GapMs: number;
  readonly seconds: number;
}

const INTERVAL_MS = 10;

/** Counts ticks until the task is done. */
export async function ticksDuring(task: () => Promise<unknown>): Promise<Ticks> {
  const started = performance.now();
  let last = started;
  const gaps: number[] = [];
  const tick = (): void => {
    const now = performance.now();
    gaps.push(now - last);
    last = now;
  };
  const timer = setInterval(tick, INTERVAL_MS);
  try {
    await task();
  } finally {
    clearInterval(timer);
  }
  // The end cuts a tick off, one of a hundred in a second: no time is counted for it, unless it was late already.
  const ended = Math.max(last, performance.now() - INTERVAL_MS);
  const seconds = (ended - started) / 1000;
  gaps.sort((a, b) => a - b);
  return {
    perSecond: gaps.length / seconds,
    largestGapMs: gaps.at(-1) ?? 0,
    p99GapMs: gaps[Math.ceil(0.99 * gaps.length) - 1] ?? 0,
    seconds,
  };
}
