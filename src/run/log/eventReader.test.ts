import { appendFile, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { exampleEvents } from "../../../test/support/exampleEvents.ts";
import { formatEvent, RunError } from "../../base/index.ts";
import { type LogLine, readLines } from "./eventLines.ts";
import { readEvents } from "./eventReader.ts";

let folder: string;
let path: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "minke-reader-"));
  path = join(folder, "events.jsonl");
});
afterEach(() => rm(folder, { recursive: true }));

async function linesOf(text: string): Promise<LogLine[]> {
  await writeFile(path, text);
  const lines: LogLine[] = [];
  for await (const line of readLines(path)) lines.push(line);
  return lines;
}

describe("readLines", () => {
  test("tells a whole line from one without its end", async () => {
    expect(await linesOf("a\nb")).toEqual([
      { text: "a", number: 1, isComplete: true },
      { text: "b", number: 2, isComplete: false },
    ]);
    expect(await linesOf("a\n\n")).toEqual([
      { text: "a", number: 1, isComplete: true },
      { text: "", number: 2, isComplete: true },
    ]);
    expect(await linesOf("")).toEqual([]);
  });

  test("gives back every text that was written, line for line", async () => {
    const text = fc.string({ unit: "grapheme", maxLength: 40 }).map((one) => one.replaceAll("\n", ""));
    await fc.assert(
      fc.asyncProperty(fc.array(text, { maxLength: 30 }), async (texts) => {
        const lines = await linesOf(texts.map((one) => `${one}\n`).join(""));
        expect(lines.map((line) => line.text)).toEqual(texts);
        expect(lines.every(({ isComplete }) => isComplete)).toBe(true);
      }),
      { numRuns: 50 },
    );
  });

  test("a line longer than a piece of the file is one line", async () => {
    const long = "鲸".repeat(300_000);
    expect((await linesOf(`${long}\nb\n`)).map(({ text }) => text)).toEqual([long, "b"]);
  });
});

describe("readEvents", () => {
  const line = (type: keyof typeof exampleEvents) => `${formatEvent(exampleEvents[type])}\n`;

  test("gives events while the writer goes on, and the next reading gives the rest", async () => {
    await writeFile(path, line("run.started"));
    const first = readEvents(path);
    expect((await first.next()).value).toEqual(exampleEvents["run.started"]);
    await first.return();
    await appendFile(path, line("step.completed"));
    const types: string[] = [];
    for await (const { type } of readEvents(path)) types.push(type);
    expect(types).toEqual(["run.started", "step.completed"]);
  });

  test.each([
    ["an empty line", "\n"],
    ["half an event", '{"schema":1,"type":"run.phase"\n'],
    ["something else", '{"level":"info","msg":"hello"}\n'],
  ])("%s in the middle is named by its number", async (_, damage) => {
    await writeFile(path, line("run.started") + damage + line("run.completed"));
    const reading = (async () => {
      for await (const { type } of readEvents(path)) expect(type).toBe("run.started");
    })();
    await expect(reading).rejects.toThrow(`${path} line 2 is not an event`);
    await expect(reading).rejects.toBeInstanceOf(RunError);
  });

  test("a folder in the place of the log is an error of the file system, not a log without events", async () => {
    await expect(readEvents(folder).next()).rejects.toThrow("EISDIR");
  });
});
