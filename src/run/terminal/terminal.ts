/**
 * Events on standard output, in one of three forms: a live line that is redrawn in place with everything else above
 * it (a terminal), plain lines (a pipe, a dumb terminal), or the events themselves as JSON lines (`--json`).
 *
 * What is told is decided in progress.ts and narration.ts; this file only writes.
 */
import { type EventSink, formatEvent, type RunEvent, type RunEventType } from "../../base/index.ts";
import { type NarratedLine, narrate } from "./narration.ts";
import { advance, noProgress, type Progress, renderLine } from "./progress.ts";

/** The part of `process.stdout` that is used. */
export interface TerminalStream {
  write(text: string): unknown;
  on(event: "resize" | "error", listener: (error: Error) => void): unknown;
  off(event: "resize" | "error", listener: (error: Error) => void): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
}

export interface TerminalOptions {
  /** Write the events as JSON lines and nothing else. Default false. */
  readonly json?: boolean;
  /** `NO_COLOR` and `TERM` are read. */
  readonly environment: Readonly<Record<string, string | undefined>>;
}

/** The sink that suits the stream; closing it leaves the cursor on a fresh line. */
export function openTerminal(stream: TerminalStream, options: TerminalOptions): Required<EventSink> {
  const { TERM, NO_COLOR } = options.environment;
  const isLive = stream.isTTY === true && TERM !== "dumb";
  const view: View = options.json
    ? new JsonView()
    : isLive
      ? new LiveView((NO_COLOR ?? "") === "")
      : new PlainView();
  return connect(stream, view);
}

/** Text to write for what happens; knows nothing of streams. */
interface View {
  show(event: RunEvent, columns: number): string;
  /** After the window changed its width. */
  redraw(columns: number): string;
  end(): string;
}

const defaultColumns = 80;

function connect(stream: TerminalStream, view: View): Required<EventSink> {
  let isOpen = true;
  // Some pseudo-terminals say that they have no columns at all.
  const columns = (): number => stream.columns || defaultColumns;
  const write = (text: string): void => {
    if (isOpen && text !== "") stream.write(text);
  };
  const onResize = (): void => write(view.redraw(columns()));
  // The reader of a pipe has left (`| head`), the window was closed, the disk of `> log.txt` is full: the run goes on,
  // its log has everything.
  const onError = (): void => {
    isOpen = false;
  };
  stream.on("resize", onResize);
  stream.on("error", onError);
  return {
    emit: (event) => write(view.show(event, columns())),
    flush: async () => {},
    close: async () => {
      write(view.end());
      // The error listener stays: a pipe may break while the last words are still on their way.
      stream.off("resize", onResize);
    },
  };
}

class JsonView implements View {
  show(event: RunEvent): string {
    return `${formatEvent(event)}\n`;
  }
  redraw(): string {
    return "";
  }
  end(): string {
    return "";
  }
}

/** A step's line at most this often, in seconds of the events' own time. */
const plainEverySeconds = 5;

class PlainView implements View {
  #progress: Progress = noProgress;
  #lastShownMs = Number.NEGATIVE_INFINITY;

  show(event: RunEvent): string {
    this.#progress = advance(this.#progress, event);
    if (event.type !== "step.completed") {
      return narrate(event, defaultColumns)
        .map(({ text }) => `${text}\n`)
        .join("");
    }
    const now = Date.parse(event.time);
    const isLast = event.step === this.#progress.plannedSteps;
    if (!isLast && now - this.#lastShownMs < plainEverySeconds * 1000) return "";
    this.#lastShownMs = now;
    const line = renderLine(this.#progress, Number.POSITIVE_INFINITY, { hasColor: false, hasBar: false });
    return `step ${line}\n`;
  }

  redraw(): string {
    return "";
  }

  end(): string {
    return "";
  }
}

/** More often than this no eye can read it, and a slow connection would fall behind. */
const liveEveryMs = 50;

const lastWords: ReadonlySet<RunEventType> = new Set(["run.completed", "run.interrupted", "run.failed"]);

const clearLine = "\r\x1b[2K";
/** Without wrapping, a line that is one column too long after a resize does not become two that stay. */
const noWrap = "\x1b[?7l";
const wrap = "\x1b[?7h";

class LiveView implements View {
  readonly #hasColor: boolean;
  #progress: Progress = noProgress;
  #drawnMs = Number.NEGATIVE_INFINITY;
  #isDrawn = false;

  constructor(hasColor: boolean) {
    this.#hasColor = hasColor;
  }

  show(event: RunEvent, columns: number): string {
    this.#progress = advance(this.#progress, event);
    const lines = narrate(event, columns);
    const now = Date.parse(event.time);
    if (lines.length === 0) {
      const isLast = event.type === "step.completed" && event.step === this.#progress.plannedSteps;
      if (event.type !== "step.completed" || (!isLast && now - this.#drawnMs < liveEveryMs)) return "";
      this.#drawnMs = now;
      return this.#draw(columns);
    }
    const above = lines.map((line) => `${this.#paint(line)}\n`).join("");
    const shown = `${this.#isDrawn ? clearLine : ""}${above}`;
    // The last word stands alone: a progress line below it would look as if the run went on.
    if (lastWords.has(event.type)) this.#progress = noProgress;
    this.#isDrawn = false;
    return shown + this.#draw(columns);
  }

  redraw(columns: number): string {
    return this.#draw(columns);
  }

  end(): string {
    return this.#isDrawn ? "\n" : "";
  }

  #draw(columns: number): string {
    const line = renderLine(this.#progress, columns, { hasColor: this.#hasColor, hasBar: true });
    if (line === "") return "";
    this.#isDrawn = true;
    return `${clearLine}${noWrap}${line}${wrap}`;
  }

  #paint({ text, tone }: NarratedLine): string {
    const [start, end] = this.#hasColor ? paints[tone] : paints.plain;
    return `${start}${text}${end}`;
  }
}

const paints: Readonly<Record<NarratedLine["tone"], readonly [string, string]>> = {
  plain: ["", ""],
  muted: ["\x1b[2m", "\x1b[22m"],
  good: ["\x1b[32m", "\x1b[39m"],
  warning: ["\x1b[33m", "\x1b[39m"],
  error: ["\x1b[31m", "\x1b[39m"],
};
