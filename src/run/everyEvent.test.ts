import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { exampleEvents } from "../../test/support/exampleEvents.ts";
import { formatEvent, parseEvent, type RunEvent, type RunEventType } from "../base/index.ts";
import { openEventLog } from "./log/eventLog.ts";
import { readEvents } from "./log/eventReader.ts";
import { collectHistory } from "./log/history.ts";
import { reportData } from "./report/reportData.ts";
import { reportHtml } from "./report/reportHtml.ts";
import { reportMarkdown } from "./report/reportMarkdown.ts";
import { summarize } from "./summary.ts";
import { narrate } from "./terminal/narration.ts";
import { advance, noProgress, renderLine } from "./terminal/progress.ts";

const all = Object.entries(exampleEvents) as [RunEventType, RunEvent][];
const events = all.map(([, event]) => event);

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "minke-events-"));
});
afterEach(() => rm(folder, { recursive: true }));

describe.each(all)("%s", (type, event) => {
  test("survives the way through a line of text", () => {
    expect(parseEvent(formatEvent(event), "line 1")).toEqual(event);
    expect(event.type).toBe(type);
  });

  test("is plain JSON: nothing is lost by a second program", () => {
    expect(JSON.parse(JSON.stringify(event))).toEqual(event);
  });

  test("is told in lines without control characters, or only moves the progress line", () => {
    const lines = narrate(event, 80);
    const isQuiet = type === "step.completed" || type === "router.bias";
    expect(lines.length === 0).toBe(isQuiet);
    for (const { text } of lines) {
      expect(text).not.toMatch(/undefined|NaN|\[object/);
      expect(text.trimEnd()).toBe(text);
      expect(text).not.toContain("\n");
    }
  });

  test("keeps the progress line whole", () => {
    const progress = [exampleEvents["run.started"], exampleEvents["step.completed"], event].reduce(
      advance,
      noProgress,
    );
    expect(renderLine(progress, 80, { hasColor: false, hasBar: true })).not.toMatch(/undefined|NaN/);
  });

  test("is described in docs/run.md", async () => {
    const page = await readFile(new URL("../../docs/run.md", import.meta.url), "utf8");
    expect(page).toContain(`| \`${type}\` |`);
  });
});

describe("all events together", () => {
  test("are a log that is read back as it was", async () => {
    const path = join(folder, "events.jsonl");
    const { log } = await openEventLog(path);
    for (const event of events) log.emit(event);
    await log.close();
    const read: RunEvent[] = [];
    for await (const event of readEvents(path)) read.push(event);
    expect(read).toEqual(events);
  });

  test("make a summary and both reports", async () => {
    const history = await collectHistory(events);
    expect(summarize(history)).toMatchObject({ runId: "example", step: 5, bitsPerByte: 2.943 });
    const data = reportData(history);
    for (const text of [reportHtml(data), reportMarkdown(data)]) {
      expect(text).not.toMatch(/undefined|NaN|Infinity|\[object/);
      expect(text).toContain("order-2 byte model");
      expect(text).toContain("whale");
    }
  });

  test("docs/run.md describes no event that does not exist", async () => {
    const page = await readFile(new URL("../../docs/run.md", import.meta.url), "utf8");
    const described = [...page.matchAll(/^\| `([a-z]+\.[a-z]+)` \|/gm)].map(([, type]) => type);
    expect(described.toSorted()).toEqual(Object.keys(exampleEvents).toSorted());
  });
});
