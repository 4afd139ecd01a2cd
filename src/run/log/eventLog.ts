/**
 * The writer of events.jsonl: in order, without ever keeping the trainer waiting, and whole after a crash.
 *
 * Writing goes on in the background; `flush` waits for the disk. The trainer flushes before it moves `latest` to a
 * checkpoint, so that a checkpoint on the disk implies the events up to its step.
 *
 * Resuming from step N cuts what came after N out of the log and appends it to events.superseded.jsonl: every reader
 * of events.jsonl, jq included, sees one history in which each step happened once, and nothing is thrown away.
 */
import { appendFile, type FileHandle, open, rename } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type EventSink, formatEvent, parseEvent, type RunEvent, type RunWarning } from "../../base/index.ts";
import { Appender } from "../files/appender.ts";
import { syncFolder } from "../files/atomicFile.ts";
import { errorCode, explained } from "../files/fileErrors.ts";
import { readLines } from "./eventLines.ts";

/** Resuming from here takes out everything: the run begins again. */
export const BEFORE_FIRST_STEP = -1;

export interface OpenLog {
  readonly log: EventLog;
  /** What was mended while opening; to be emitted by whoever opened the log. */
  readonly warnings: readonly RunWarning[];
  /** Steps whose events were taken out because the run goes on before them. */
  readonly repeatedSteps: number;
}

/**
 * Opens a log to write at its end; makes it if there is none.
 *
 * @param resumeStep  the checkpoint's step N: events of later steps are taken out; undefined keeps
 *                    everything, BEFORE_FIRST_STEP nothing
 * @throws            {RunError} for a damaged line in the middle, or if the file may not be written
 */
export async function openEventLog(
  path: string,
  resumeStep: number = Number.POSITIVE_INFINITY,
): Promise<OpenLog> {
  return explained(path, "write events", async () => {
    const { torn, superseded } = await mend(path, resumeStep);
    const file = await openForWriting(path);
    const { size } = await file.stat();
    const steps = superseded.filter(({ type }) => type === "step.completed" || type === "step.skipped");
    return {
      log: new EventLog(new Appender(path, file, size, "write events")),
      warnings: torn === undefined ? [] : [tornWarning(path, torn)],
      repeatedSteps: steps.length,
    };
  });
}

export class EventLog implements EventSink {
  readonly #file: Appender;

  constructor(file: Appender) {
    this.#file = file;
  }

  /** Events that are not in the file yet. After a failure they wait here for the next `flush`. */
  get numPending(): number {
    return this.#file.numPending;
  }

  /** What stopped the writing in the background, until a `flush` gets through; a trainer may look at it every step. */
  get failure(): unknown {
    return this.#file.failure;
  }

  emit(event: RunEvent): void {
    this.#file.append(Buffer.from(`${formatEvent(event)}\n`));
  }

  /** @throws {DiskError} if the disk is full; nothing is lost then, and a later flush tries again */
  async flush(): Promise<void> {
    await this.#file.flush();
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}

async function openForWriting(path: string): Promise<FileHandle> {
  try {
    return await open(path, "r+");
  } catch (error) {
    if (errorCode(error) !== "ENOENT") throw error;
    const file = await open(path, "wx+");
    await syncFolder(dirname(path));
    return file;
  }
}

interface Findings {
  /** The last line, if it is not whole. */
  readonly torn: string | undefined;
  readonly superseded: readonly RunEvent[];
  /** Numbers of the lines that have to go. */
  readonly cut: ReadonlySet<number>;
}

/** Takes a torn last line and the events after the resumed step out of the file, by a copy that replaces it. */
async function mend(path: string, resumeStep: number): Promise<Findings> {
  const findings = await inspect(path, resumeStep);
  if (findings.cut.size === 0) return findings;
  if (findings.superseded.length > 0) {
    // First the superseded lines are safe, then they leave the log: a crash in between keeps them twice, never not.
    const text = findings.superseded.map((event) => `${formatEvent(event)}\n`).join("");
    await appendFile(join(dirname(path), "events.superseded.jsonl"), text, { flush: true });
  }
  const copyPath = `${path}.tmp`;
  const copy = await open(copyPath, "w");
  try {
    for await (const { text, number } of readLines(path)) {
      if (!findings.cut.has(number)) await copy.appendFile(`${text}\n`);
    }
    await copy.sync();
  } finally {
    await copy.close();
  }
  await rename(copyPath, path);
  await syncFolder(dirname(path));
  return findings;
}

async function inspect(path: string, resumeStep: number): Promise<Findings> {
  const superseded: RunEvent[] = [];
  const cut = new Set<number>();
  let torn: string | undefined;
  try {
    for await (const { text, number, isComplete } of readLines(path)) {
      if (!isComplete) {
        torn = text;
        cut.add(number);
        break;
      }
      const event = parseEvent(text, `${path} line ${number}`);
      // An event without a step belongs to the time in which it stands.
      const isLater =
        resumeStep === BEFORE_FIRST_STEP ||
        ("step" in event ? event.step > resumeStep : superseded.length > 0);
      if (!isLater) continue;
      superseded.push(event);
      cut.add(number);
    }
  } catch (error) {
    if (errorCode(error) !== "ENOENT") throw error;
  }
  return { torn, superseded, cut };
}

function tornWarning(path: string, torn: string): RunWarning {
  const start = JSON.stringify(torn.slice(0, 40));
  return {
    type: "run.warning",
    what: `cut an unfinished last line of ${Buffer.byteLength(torn)} bytes off ${path}: ${start}`,
    why: "the writer was stopped in the middle of an event: killed, or the machine lost power",
    fix: null,
  };
}
