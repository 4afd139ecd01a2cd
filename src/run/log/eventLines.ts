/** The lines of an event log, read piece by piece. What the lines say is eventReader.ts's and eventLog.ts's business. */
import { createReadStream } from "node:fs";

export interface LogLine {
  readonly text: string;
  /** From 1. */
  readonly number: number;
  /** False for a last line that no newline ends: it is being written, or its writer was killed. */
  readonly isComplete: boolean;
}

export async function* readLines(path: string): AsyncGenerator<LogLine, void, void> {
  let rest = "";
  let number = 0;
  for await (const piece of createReadStream(path, { encoding: "utf8", highWaterMark: 1 << 18 })) {
    const lines = (rest + String(piece)).split("\n");
    rest = lines.pop()!;
    for (const text of lines) yield { text, number: ++number, isComplete: true };
  }
  if (rest !== "") yield { text: rest, number: ++number, isComplete: false };
}
