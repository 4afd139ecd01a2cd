import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type SyntheticRunOptions, syntheticRun } from "../../../test/support/syntheticRun.ts";
import { RunError, type RunEvent, stampEvent } from "../../base/index.ts";
import { openEventLog } from "../log/eventLog.ts";
import { collectHistory } from "../log/history.ts";
import { writeReport } from "./report.ts";
import { layerName, type ReportData, reportData } from "./reportData.ts";
import { reportHtml } from "./reportHtml.ts";
import { reportMarkdown } from "./reportMarkdown.ts";

const dataOf = async (events: Iterable<RunEvent>): Promise<ReportData> =>
  reportData(await collectHistory(events));
const run = (options: Partial<SyntheticRunOptions> = {}) => [...syntheticRun({ steps: 400, ...options })];

/** A model that wants to break out of the page. */
const hostile = stampEvent({
  type: "sample.generated",
  step: 400,
  prompt: "</p><script>alert(1)</script>",
  text: "| `x` **y** <img src=x onerror=alert(2)> \u001b[2J",
});

/** Throws unless every tag that is opened is closed, in order. */
function expectBalanced(html: string): void {
  const open: string[] = [];
  const isVoid = /^(meta|br|img|link|input|!doctype)$/i;
  for (const [, slash, name, rest] of html
    .replace(/<style>[\s\S]*<\/style>/, "")
    .matchAll(/<(\/?)([!\w]+)([^>]*)>/g)) {
    if (isVoid.test(name!) || rest!.endsWith("/")) continue;
    if (slash === "") open.push(name!);
    else expect(open.pop()).toBe(name);
  }
  expect(open).toEqual([]);
}

describe("the page", () => {
  test("needs nothing but itself: no script, no address, no file", async () => {
    const html = reportHtml(await dataOf([...run(), hostile]));
    expect(html).not.toMatch(/@import|url\(/i);
    for (const [tag] of html.matchAll(/<[^>]*>/g)) {
      expect(tag).not.toMatch(/^<(script|link|img|iframe|object|embed|base)|https?:|\s(src|href|on\w+)=/i);
    }
  });

  test("is well-formed, and every coordinate in it is a number", async () => {
    const html = reportHtml(await dataOf(run()));
    expectBalanced(html);
    expect(html).not.toMatch(/NaN|undefined|Infinity|\[object/);
  });

  test("shows what the model wrote, and obeys none of it", async () => {
    const html = reportHtml(await dataOf([...run(), hostile]));
    expectBalanced(html);
    expect(html).toContain("&lt;/p&gt;&lt;script&gt;alert(1)&lt;/script&gt;");
  });

  test("has every part that the events can fill", async () => {
    const html = reportHtml(await dataOf(run()));
    const headings = [...html.matchAll(/<h2>([^<]*)<\/h2>/g)].map(([, text]) => text);
    expect(headings).toEqual([
      "Learning",
      "Against simple models",
      "Samples while it learned",
      "Expert load",
      "Router bias",
      "Schedules and speed",
      "Where the time went",
      "What happened",
      "Model",
      "Data",
      "Memory",
      "Machine and command",
      "Settings",
    ]);
    const titles = [...html.matchAll(/<figcaption><b>([^<]*)<\/b>/g)].map(([, text]) => text);
    expect(titles.slice(0, 2)).toEqual(["Loss", "Bits per byte"]);
    expect(titles.filter((title) => title === "layer 6 (MTP)")).toHaveLength(2); // heat map and bias
  });

  test("of a dense model without MTP has no experts and no empty charts", async () => {
    const dense = run().flatMap((event): RunEvent[] => {
      if (event.type === "router.bias" || event.type === "baselines.measured") return [];
      if (event.type === "step.completed")
        return [{ ...event, expertLoad: [], mtpLosses: [], shareOfPeak: null }];
      if (event.type === "evaluation.completed") return [{ ...event, nextNextTokenAccuracy: null }];
      return [event];
    });
    const html = reportHtml(await dataOf(dense));
    expectBalanced(html);
    expect(html).not.toMatch(/Expert load|Router bias|Against simple|MTP 1|Share of peak/);
    expect(html).not.toMatch(/NaN|undefined/);
  });

  test("of a run that has only begun stands on its own", async () => {
    for (const length of [1, 5, 8]) {
      const html = reportHtml(await dataOf(run().slice(0, length)));
      expectBalanced(html);
      expect(html).not.toMatch(/NaN|undefined|Infinity/);
    }
  });

  test("stays below half a megabyte for ten thousand steps", async () => {
    const html = reportHtml(await dataOf(run({ steps: 10_000, evaluateEvery: 200, sampleEvery: 1000 })));
    expect(html.length).toBeLessThan(500_000);
  });
});

describe("reportData", () => {
  test("puts the model among the baselines, best first", async () => {
    const { baselines } = await dataOf(run());
    expect(baselines.map(({ bitsPerByte }) => bitsPerByte)).toEqual(
      baselines.map(({ bitsPerByte }) => bitsPerByte).toSorted((a, b) => a - b),
    );
    expect(baselines.filter(({ isModel }) => isModel)).toHaveLength(1);
  });

  test("sees that a run without balancing is out of balance and one with it is not", async () => {
    const worst = async (gamma: number) =>
      Math.max(...(await dataOf(run({ gamma, steps: 600 }))).worstLoads.map(({ highest }) => highest.max));
    expect(await worst(0.008)).toBeLessThan(1.15);
    expect(await worst(0)).toBeGreaterThan(1.5);
  });

  test("adds up the phases of one name", async () => {
    const phase = (name: string, seconds: number) => stampEvent({ type: "run.phase", name, seconds });
    const { phases } = await dataOf([...run().slice(0, 1), phase("a", 1), phase("b", 2), phase("a", 3)]);
    expect(phases).toEqual([
      { name: "a", seconds: 4 },
      { name: "b", seconds: 2 },
    ]);
  });

  test("tells what happened in the order in which it happened", async () => {
    const { incidents } = await dataOf(run());
    expect(incidents.map(({ text }) => text.split(":")[0])).toEqual([
      "Warning",
      "Skipped",
      expect.stringMatching(/^Completed after/),
    ]);
  });

  test("names MTP layers", () => {
    expect(layerName(5, { firstMtpLayer: 6 })).toBe("layer 5");
    expect(layerName(6, { firstMtpLayer: 6 })).toBe("layer 6 (MTP)");
  });

  test("refuses events that are no run", async () => {
    await expect(dataOf([])).rejects.toThrow(RunError);
  });
});

describe("the Markdown", () => {
  test("has the figures, the evaluations and the settings", async () => {
    const text = reportMarkdown(await dataOf(run()));
    expect(text).toMatch(/^# 2026-11-21-nano-1\n/);
    expect(text).toMatch(/\| validation bits per byte \| \d\.\d{3} \|/);
    expect(text.match(/^\| \d+ \| \d\.\d{3} \| \d\.\d{3} \| \d+\.\d% \|$/gm)).toHaveLength(8);
    expect(text).toContain("| model.nRoutedExperts | `16` |");
    expect(text).toMatch(/`[▁▂▃▄▅▆▇█]{20,}`/);
  });

  test("no cell and no sample breaks out of its place", async () => {
    const text = reportMarkdown(await dataOf([...run(), hostile]));
    const rows = text.split("\n").filter((line) => line.startsWith("|"));
    for (const row of rows) expect(row.endsWith("|")).toBe(true);
    expect(text).toContain("\\<script\\>");
    expect(text).not.toMatch(/[^\\]<(script|img)/);
    expect(text).not.toContain("\u001b");
  });
});

describe("writeReport", () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "minke-report-"));
  });
  afterEach(() => rm(folder, { recursive: true }));

  test("makes both files from events.jsonl alone, the same each time", async () => {
    const { log } = await openEventLog(join(folder, "events.jsonl"));
    for (const event of run()) log.emit(event);
    await log.close();
    const paths = await writeReport(folder);
    expect((await readdir(folder)).sort()).toEqual(["events.jsonl", "report.html", "report.md"]);
    const first = await readFile(paths.html, "utf8");
    expect(first).toBe(reportHtml(await dataOf(run())));
    await writeReport(folder);
    expect(await readFile(paths.html, "utf8")).toBe(first);
  });

  test("says that a folder holds no events", async () => {
    await expect(writeReport(folder)).rejects.toThrow("there is no event log at");
  });
});
