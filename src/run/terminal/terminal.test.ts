import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { exampleEvents } from "../../../test/support/exampleEvents.ts";
import { colourSequence, Screen } from "../../../test/support/screen.ts";
import { syntheticRun } from "../../../test/support/syntheticRun.ts";
import { parseEvent, type RunEvent, type RunEventType } from "../../base/index.ts";
import { narrate } from "./narration.ts";
import { openTerminal, type TerminalOptions } from "./terminal.ts";

async function shown(screen: Screen, events: Iterable<RunEvent>, options: Partial<TerminalOptions> = {}) {
  const terminal = openTerminal(screen, { environment: {}, ...options });
  for (const event of events) terminal.emit(event);
  await terminal.close();
  return screen.lines;
}

const run = (steps: number, isCompleted = true) => [...syntheticRun({ steps, isCompleted })];

describe("a terminal", () => {
  test("shows one progress line at the bottom, redrawn in place, and everything else once above it", async () => {
    const lines = await shown(new Screen(120), run(250, false));
    expect(lines.filter((line) => /\d+\/250/.test(line))).toHaveLength(1);
    expect(lines.at(-2)).toMatch(/^250\/250 {2}━{16} {2}loss \d/);
    expect(lines.at(-1)).toBe("");
    expect(lines.filter((line) => line.startsWith("validation")).map((line) => line.slice(12, 21))).toEqual([
      "step 50: ",
      "step 100:",
      "step 150:",
      "step 200:",
      "step 250:",
    ]);
    expect(lines.filter((line) => line.startsWith("sample"))).toHaveLength(3);
  });

  test("the last word stands alone at the end", async () => {
    const lines = await shown(new Screen(100), run(60));
    expect(lines.at(-2)).toMatch(/^done {8}60 steps/);
    expect(lines.filter((line) => /\d+\/60 /.test(line))).toEqual([]);
  });

  test.each([20, 21, 33, 47, 80])("at %i columns the progress line never breaks", async (columns) => {
    const screen = new Screen(200);
    const terminal = openTerminal(screen, { environment: {} });
    const [started, ...rest] = run(300, false);
    terminal.emit(started!);
    screen.columns = columns;
    for (const event of rest.filter(({ type }) => type === "step.completed")) terminal.emit(event);
    await terminal.close();
    const { lines } = screen;
    const live = lines.slice(lines.findLastIndex((line) => line.includes("validationEvery")) + 1);
    expect(live).toHaveLength(2);
    expect(live[0]!.length).toBeLessThanOrEqual(columns);
    expect(live[0]).toMatch(/^300\/300/);
  });

  test("a change of the window's width redraws at once", () => {
    const screen = new Screen(100);
    const terminal = openTerminal(screen, { environment: {} });
    for (const event of run(20, false)) terminal.emit(event);
    screen.columns = 24;
    screen.emit("resize");
    expect(screen.lines.at(-1)).toMatch(/^20\/20 {2}loss [\d.]+$/);
  });

  test("does not redraw more often than an eye can follow", () => {
    const screen = new Screen(80);
    const terminal = openTerminal(screen, { environment: {} });
    const steps = run(400, false).filter(({ type }) => type === "step.completed");
    const start = Date.parse("2026-11-21T00:00:00Z");
    for (const [index, event] of steps.entries()) {
      terminal.emit({ ...event, time: new Date(start + index).toISOString() });
    }
    const numDrawn = screen.raw.split("\x1b[2K").length - 1;
    expect(numDrawn).toBe(8); // 400 ms of events, one drawing each 50 ms
  });

  test("NO_COLOR takes the colours and leaves the live line", async () => {
    const screen = new Screen(80);
    await shown(screen, run(20), { environment: { NO_COLOR: "1" } });
    expect(screen.raw).not.toMatch(colourSequence);
    expect(screen.raw).toContain("\x1b[2K");
    const coloured = new Screen(80);
    await shown(coloured, run(20), { environment: { NO_COLOR: "" } });
    expect(coloured.raw).toContain("\x1b[33mwarning");
  });
});

describe("whatever happens, at whatever width", () => {
  const kinds = Object.keys(exampleEvents) as RunEventType[];
  const last: readonly RunEventType[] = ["run.completed", "run.interrupted", "run.failed"];

  /** What the lines above the progress line have to say, as one text without blanks: wrapping must not lose any. */
  const told = (events: readonly RunEvent[]) =>
    events.flatMap((event) => narrate(event, 200).map(({ text }) => text.replaceAll(/\s/g, ""))).join("");

  test("every line is shown once and in order, and no remnant of the progress line stays", () => {
    const happenings = fc.array(fc.constantFrom(...kinds), { maxLength: 25 });
    fc.assert(
      fc.property(happenings, fc.integer({ min: 20, max: 200 }), (types, columns) => {
        const screen = new Screen(200);
        const terminal = openTerminal(screen, { environment: {} });
        const events = types.map((type, index) => ({
          ...exampleEvents[type],
          time: new Date(index * 1000).toISOString(),
        }));
        for (const event of events) {
          terminal.emit(event);
          // A wide window keeps the folding of settings comparable; the live line must obey any width.
          screen.columns = columns;
          screen.emit("resize");
          screen.columns = 200;
        }
        const isLive = /^ *\d+\/\d+/.test(screen.lines.at(-1)!);
        const above = isLive ? screen.lines.slice(0, -1) : screen.lines;
        expect(above.join("").replaceAll(/\s/g, "")).toBe(told(events));
        const lastStep = types.lastIndexOf("step.completed");
        const lastEnd = types.findLastIndex(
          (type) => type.startsWith("run.s") || type === "run.resumed" || last.includes(type),
        );
        expect(isLive).toBe(lastStep > lastEnd);
        if (isLive) expect(screen.lines.at(-1)!.length).toBeLessThanOrEqual(columns);
      }),
      { numRuns: 150 },
    );
  });

  test("colours that are switched on are switched off before the line ends", () => {
    for (const type of kinds) {
      const screen = new Screen(200);
      openTerminal(screen, { environment: {} }).emit(exampleEvents[type]);
      for (const line of screen.raw.split("\n")) {
        const switches = [...line.matchAll(/\[(\d+)m/g)].map(([, code]) => Number(code));
        for (const [index, code] of switches.entries())
          expect(code >= 39 || code === 22).toBe(index % 2 === 1);
      }
    }
  });
});

describe("a pipe or a dumb terminal", () => {
  test.each([
    ["a pipe", new Screen(80, false), {}],
    ["a dumb terminal", new Screen(80, true), { TERM: "dumb" }],
  ])(
    "%s gets plain lines, a step every five seconds, the first and the last",
    async (_, screen, environment) => {
      const lines = await shown(screen, run(100), { environment });
      expect(screen.raw).not.toContain("\x1b");
      expect(screen.raw).not.toContain("\r");
      const steps = lines
        .filter((line) => line.startsWith("step "))
        .map((line) => Number(/\d+/.exec(line)![0]));
      expect(steps[0]).toBe(1);
      expect(steps.at(-1)).toBe(100);
      expect(steps.length).toBeGreaterThan(4);
      expect(steps.length).toBeLessThan(9); // the fixture takes about 27 s
      expect(lines.filter((line) => line.startsWith("done"))).toHaveLength(1);
    },
  );

  test.each(["EPIPE", "EIO", "ENOSPC"])(
    "a stream that fails (%s) ends the writing and not the run",
    (code) => {
      const screen = new Screen(80, false);
      const terminal = openTerminal(screen, { environment: {} });
      screen.emit("error", Object.assign(new Error(code), { code }));
      for (const event of run(10)) terminal.emit(event);
      expect(screen.raw).toBe("");
    },
  );
});

describe("--json", () => {
  test("writes every event as one line and nothing else, on a terminal too", async () => {
    const events = run(30);
    const screen = new Screen(80);
    await shown(screen, events, { json: true });
    const lines = screen.raw.trimEnd().split("\n");
    expect(lines.map((line) => parseEvent(line, "stdout"))).toEqual(events);
  });
});
