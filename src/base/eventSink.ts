/** Where events go: one sink, several at once, or a channel that is read by `for await`. */
import { type RunEvent, stampEvent } from "./events.ts";

export interface EventSink {
  /** Takes the event at once and never waits. */
  emit(event: RunEvent): void;
  /** Resolves when everything emitted so far is where it belongs. */
  flush?(): Promise<void>;
  /** Flushes and gives back what the sink holds; nothing may be emitted afterwards. */
  close?(): Promise<void>;
}

/**
 * One sink that hands every event to all of the given ones, in their order.
 *
 * A sink that throws does not keep the event from those after it: a closed terminal must not cost the log a line.
 */
export function fanOut(sinks: readonly EventSink[]): Required<EventSink> {
  return {
    emit: (event) => throwFirst(sinks.map((sink) => failureOf(() => sink.emit(event)))),
    flush: async () => settle(sinks.map((sink) => sink.flush?.())),
    close: async () => settle(sinks.map((sink) => sink.close?.())),
  };
}

function failureOf(run: () => void): { error: unknown } | undefined {
  try {
    run();
    return undefined;
  } catch (error) {
    return { error };
  }
}

async function settle(promises: readonly (Promise<void> | undefined)[]): Promise<void> {
  const results = await Promise.allSettled(promises);
  throwFirst(results.map((result) => (result.status === "rejected" ? { error: result.reason } : undefined)));
}

function throwFirst(failures: readonly ({ error: unknown } | undefined)[]): void {
  const found = failures.filter((failure) => failure !== undefined).map((failure) => failure.error);
  if (found.length === 1) throw found[0];
  if (found.length > 1) throw new AggregateError(found, `${found.length} event sinks failed`);
}

/** Events that wait for a reader who has not come yet; a run that nobody reads must not fill the memory. */
const waitingLimit = 256;

/**
 * A sink that is read by one `for await`: how a program follows a run that it has started.
 *
 * Events wait in memory until they are read. Before the loop begins only the newest 256 are kept, and a reader who
 * comes late is told by a `run.warning` how many are missing. Leaving the loop early is allowed; what comes later is
 * dropped.
 */
export class EventChannel implements EventSink {
  #isRead = false;
  #numMissed = 0;
  readonly #waiting: RunEvent[] = [];
  #wake: (() => void) | undefined;
  #isClosed = false;
  #failure: { error: unknown } | undefined;

  emit(event: RunEvent): void {
    if (this.#isClosed) return;
    this.#waiting.push(event);
    if (!this.#isRead && this.#waiting.length > waitingLimit) {
      this.#waiting.shift();
      this.#numMissed++;
    }
    this.#wake?.();
  }

  /** Ends the reader's loop after the events that still wait. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#wake?.();
  }

  /** Ends the reader's loop with this error, after the events that still wait. */
  fail(error: unknown): void {
    this.#failure = { error };
    this.#isClosed = true;
    this.#wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<RunEvent, void, void> {
    this.#isRead = true;
    try {
      if (this.#numMissed > 0) yield missedWarning(this.#numMissed);
      while (true) {
        const next = this.#waiting.shift();
        if (next !== undefined) yield next;
        else if (this.#isClosed) break;
        else await new Promise<void>((resolve) => (this.#wake = resolve));
      }
      if (this.#failure !== undefined) throw this.#failure.error;
    } finally {
      this.#isClosed = true;
      this.#waiting.length = 0;
    }
  }
}

function missedWarning(numMissed: number): RunEvent {
  return stampEvent({
    type: "run.warning",
    what: `${numMissed} events came before anybody read them and are not in this loop`,
    why: `only the newest ${waitingLimit} wait for a reader; all of them are in the run's events.jsonl`,
    fix: "begin the loop before the run is awaited",
  });
}
