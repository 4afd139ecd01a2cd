/** All events of a run by their type: what the index, the reports and TensorBoard files are made from. */
import type { EventOf, RunEvent, RunEventType } from "../../base/index.ts";

export class RunHistory {
  readonly #byType = new Map<RunEventType, RunEvent[]>();
  #last: RunEvent | undefined;

  add(event: RunEvent): void {
    const events = this.#byType.get(event.type);
    if (events === undefined) this.#byType.set(event.type, [event]);
    else events.push(event);
    this.#last = event;
  }

  /** In the order in which they happened. */
  of<T extends RunEventType>(type: T): readonly EventOf<T>[] {
    return (this.#byType.get(type) ?? []) as RunEvent[] as EventOf<T>[];
  }

  lastOf<T extends RunEventType>(type: T): EventOf<T> | undefined {
    return this.of(type).at(-1);
  }

  get last(): RunEvent | undefined {
    return this.#last;
  }
}

export async function collectHistory(
  events: Iterable<RunEvent> | AsyncIterable<RunEvent>,
): Promise<RunHistory> {
  const history = new RunHistory();
  for await (const event of events) history.add(event);
  return history;
}
