/**
 * Lets a long computation give way to the event loop: ask `isOver` often, and `await next()` when it is.
 *
 * The slice is 8 ms, so that with the work between two questions the loop is held for about 10.
 */
export class TimeSlice {
  private end: number = performance.now() + SLICE_MS;
  private readonly signal: AbortSignal | undefined;

  constructor(signal?: AbortSignal) {
    this.signal = signal;
    signal?.throwIfAborted();
  }

  get isOver(): boolean {
    return performance.now() >= this.end;
  }

  /** Waits for the event loop's next turn; throws the signal's reason if it was aborted. */
  async next(): Promise<void> {
    await new Promise<void>((resolve) => {
      if (typeof setImmediate === "function") setImmediate(resolve);
      else setTimeout(resolve, 0); // in browsers
    });
    this.signal?.throwIfAborted();
    this.end = performance.now() + SLICE_MS;
  }
}

const SLICE_MS = 8;
