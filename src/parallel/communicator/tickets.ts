/** Numbers for the messages in flight on one queue: the smallest that is free. */
export class Tickets {
  readonly #taken: Set<number> = new Set();

  /**
   * A replay repeats the tickets of its recording while others may be in flight that were not when it was recorded,
   * so recordings have numbers of their own; what a recording posts it awaits too, so recordings do not meet.
   */
  take(isRecording: boolean): number {
    let ticket = isRecording ? FIRST_RECORDED : 0;
    while (this.#taken.has(ticket)) ticket++;
    this.#taken.add(ticket);
    return ticket;
  }

  giveBack(ticket: number): void {
    this.#taken.delete(ticket);
  }
}

const FIRST_RECORDED = 2 ** 16;
