/** How free the event loop is: what a 10 ms timer gets while something else goes on. */

export interface Ticks {
  readonly perSecond: number;
  /** Longest time between two ticks in milliseconds. */
  readonly largestGapMs: number;
  readonly seconds: number;
}

const INTERVAL_MS = 10;

/** Counts ticks until the task is done. */
export async function ticksDuring(task: () => Promise<unknown>): Promise<Ticks> {
  const started = performance.now();
  let last = started;
  let count = 0;
  let largestGapMs = 0;
  const tick = (): void => {
    const now = performance.now();
    largestGapMs = Math.max(largestGapMs, now - last);
    last = now;
    count++;
  };
  const timer = setInterval(tick, INTERVAL_MS);
  try {
    await task();
  } finally {
    clearInterval(timer);
  }
  const seconds = (performance.now() - started) / 1000;
  return { perSecond: count / seconds, largestGapMs, seconds };
}
