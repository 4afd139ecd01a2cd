/**
 * Commands of a queue, as they ran, become spans: what was computed for an action of the plan without a break is one
 * span, every wait for messages is one. What only starts a message takes no time of its own.
 */
import type { TracedCommand, TracedMessage } from "../../tensor/index.ts";
import type { MarkedWork } from "./marks.ts";
import type { AwaitedMessage, SentMessage, Span } from "./spans.ts";

/** Commands follow each other within a microsecond; a longer gap is time in which the queue had nothing to do. */
const BREAK_SECONDS = 20e-6;

interface Work {
  readonly mark: string;
  readonly start: number;
  end: number;
}

export class CommandSpans {
  readonly #read: (mark: string) => MarkedWork;
  /** What is added to the queue's own seconds. */
  readonly #offset: number;
  readonly #spans: Span[] = [];
  readonly #sends: SentMessage[] = [];
  /** Posted and not yet awaited, by tickets. */
  readonly #posted: Map<number, AwaitedMessage[]> = new Map();
  /** Receives posted so far, by sender and tag. */
  readonly #counts: Map<string, number> = new Map();

  constructor(read: (mark: string) => MarkedWork, offset: number) {
    this.#read = read;
    this.#offset = offset;
  }

  get spans(): readonly Span[] {
    return this.#spans;
  }

  get sends(): readonly SentMessage[] {
    return this.#sends;
  }

  /** Commands that ran one after another, and behind those that were added before. */
  add(commands: readonly TracedCommand[]): void {
    let work: Work | null = null;
    for (const { mark, message, begin, end: endNs } of commands) {
      const [start, end] = [this.#seconds(begin), this.#seconds(endNs)];
      if (message !== null) {
        if (message.part !== "await") this.#post(message, start);
        else {
          this.#close(work);
          work = null;
          this.#wait(message, mark, start, end);
        }
      } else if (work !== null && work.mark === mark && start - work.end <= BREAK_SECONDS) work.end = end;
      else {
        this.#close(work);
        work = { mark, start, end };
      }
    }
    this.#close(work);
  }

  #seconds(nanoseconds: number): number {
    return nanoseconds / 1e9 + this.#offset;
  }

  #post({ part, ticket, peer, tag, bytes }: TracedMessage, at: number): void {
    if (peer === null || tag === null) return;
    if (part === "send") {
      this.#sends.push({ to: peer, tag, bytes, at });
      return;
    }
    const key = `${peer} ${tag}`;
    const index = this.#counts.get(key) ?? 0;
    this.#counts.set(key, index + 1);
    const posted = this.#posted.get(ticket) ?? [];
    posted.push({ from: peer, tag, index, at });
    this.#posted.set(ticket, posted);
  }

  #wait({ ticket }: TracedMessage, mark: string, start: number, end: number): void {
    const awaits = this.#posted.get(ticket) ?? [];
    this.#posted.delete(ticket);
    const from = [...new Set(awaits.map((message) => message.from))];
    const work = this.#read(mark);
    const name = `${work.name} waits${from.length === 0 ? "" : ` for rank ${from.join(", ")}`}`;
    this.#spans.push({ name, category: "wait", start, end, ...chunksOf(work), awaits });
  }

  #close(work: Work | null): void {
    if (work === null) return;
    const { start, end, mark } = work;
    const marked = this.#read(mark);
    this.#spans.push({ name: marked.name, category: "compute", start, end, ...chunksOf(marked) });
  }
}

function chunksOf({ chunks }: MarkedWork): Pick<Span, "chunks"> {
  return chunks.length === 0 ? {} : { chunks };
}
