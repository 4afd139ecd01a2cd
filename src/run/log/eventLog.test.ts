import { once } from "node:events";
import { appendFile, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { startModule } from "../../../test/support/childProcess.ts";
import { syntheticRun } from "../../../test/support/syntheticRun.ts";
import { formatEvent, RunError, type RunEvent, stampEvent } from "../../base/index.ts";
import { BEFORE_FIRST_STEP, openEventLog } from "./eventLog.ts";
import { readEvents } from "./eventReader.ts";

let folder: string;
let path: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "minke-log-"));
  path = join(folder, "events.jsonl");
});
afterEach(() => rm(folder, { recursive: true }));

async function read(file = path): Promise<RunEvent[]> {
  const events: RunEvent[] = [];
  for await (const event of readEvents(file)) events.push(event);
  return events;
}

async function write(events: Iterable<RunEvent>, resumeStep?: number): Promise<number> {
  const { log, repeatedSteps } = await openEventLog(path, resumeStep);
  for (const event of events) log.emit(event);
  await log.close();
  return repeatedSteps;
}

const run = (options: { steps: number; isCompleted?: boolean }) => [...syntheticRun(options)];
const stepsOf = (events: readonly RunEvent[]) =>
  events.filter((event) => event.type === "step.completed").map((event) => event.step);

describe("EventLog", () => {
  test("what was emitted is read back, in order", async () => {
    const events = run({ steps: 120 });
    await write(events);
    expect(await read()).toEqual(events);
    expect(await readFile(path, "utf8")).toBe(events.map((event) => `${formatEvent(event)}\n`).join(""));
  });

  test("a second opening writes on at the end", async () => {
    const events = run({ steps: 10 });
    await write(events.slice(0, 7));
    await write(events.slice(7));
    expect(await read()).toEqual(events);
  });

  test("a run that begins again from nothing begins its log again, and the old one is kept beside it", async () => {
    const [old, fresh] = [run({ steps: 10 }), run({ steps: 4 })];
    await write(old);
    const numSteps = old.filter(({ type }) => type.startsWith("step.")).length;
    expect(await write(fresh, BEFORE_FIRST_STEP)).toBe(numSteps);
    expect(await read()).toEqual(fresh);
    expect(await read(join(folder, "events.superseded.jsonl"))).toEqual(old);
  });

  test("emit never waits: everything is accepted before a byte is written, and flush brings it to the file", async () => {
    const events = run({ steps: 30 });
    const { log } = await openEventLog(path);
    for (const event of events) log.emit(event);
    expect(log.numPending).toBe(events.length);
    await log.flush();
    expect(log.numPending).toBe(0);
    expect(await read()).toEqual(events);
    await log.close();
  });

  test("an event after the end is refused, not lost in silence", async () => {
    const { log } = await openEventLog(path);
    await log.close();
    await log.close();
    expect(() => log.emit(run({ steps: 1 })[0]!)).toThrow(RunError);
  });

  test("a folder that may not be written is named when the log is opened", async () => {
    await expect(openEventLog("/sys/kernel/events.jsonl")).rejects.toThrow("cannot write events");
  });
});

describe("a writer that was killed", () => {
  test("a torn last line is cut off and named; all others stay", async () => {
    const events = run({ steps: 5 });
    await write(events);
    await appendFile(path, '{"schema":1,"time":"2026-11-2');
    const { log, warnings } = await openEventLog(path);
    expect(warnings).toHaveLength(1);
    expect(warnings[0]!.what).toContain("cut an unfinished last line of 29 bytes off");
    const next = stampEvent({ type: "run.phase", name: "next", seconds: 1 });
    log.emit(next);
    await log.close();
    expect(await read()).toEqual([...events, next]);
  });

  test("at whatever byte the file ends, re-opening keeps exactly the whole lines", async () => {
    const events = run({ steps: 3 });
    const bytes = Buffer.from(events.map((event) => `${formatEvent(event)}\n`).join(""));
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: bytes.length }), async (length) => {
        await writeFile(path, bytes.subarray(0, length));
        const numWhole = bytes.subarray(0, length).filter((byte) => byte === 10).length;
        await write([]);
        expect(await read()).toEqual(events.slice(0, numWhole));
      }),
      { numRuns: 40 },
    );
  });

  test("after kill -9 in the middle of writing the log opens and holds a beginning of the history", async () => {
    const script = `
      import { openEventLog } from ${JSON.stringify(new URL("./eventLog.ts", import.meta.url).href)};
      const { log } = await openEventLog(${JSON.stringify(path)});
      for (let step = 0; ; step++) {
        log.emit({ schema: 1, time: new Date().toISOString(), type: "run.phase", name: "x".repeat(5000), seconds: step });
        if (step % 50 === 0) await log.flush();
        if (step === 200) process.stdout.write("going");
      }`;
    const child = startModule(script);
    await once(child.stdout!, "data");
    child.kill("SIGKILL");
    await once(child, "exit");
    await write([stampEvent({ type: "run.phase", name: "after", seconds: -1 })]);
    const seconds = (await read()).map((event) => (event.type === "run.phase" ? event.seconds : Number.NaN));
    expect(seconds.length).toBeGreaterThan(200);
    expect(seconds).toEqual([...seconds.slice(0, -1).keys(), -1]);
  });
});

describe("resuming from step N", () => {
  const resumed = (step: number) =>
    stampEvent({ ...resumedBody, type: "run.resumed", step, checkpoint: `checkpoints/step-${step}` });
  const started = run({ steps: 1 })[0]!;
  if (started.type !== "run.started") throw new Error("a run starts with run.started");
  const { version, config, plannedSteps, plannedTokens, environment } = started;
  const resumedBody = { version, config, plannedSteps, plannedTokens, environment, repeatedSteps: 0 };

  test("each step happens once in the log, and what was done again is kept beside it", async () => {
    const first = run({ steps: 60, isCompleted: false });
    await write(first);
    const again = run({ steps: 80 }).filter((event) => "step" in event && event.step > 40);
    expect(await write([resumed(40), ...again], 40)).toBe(20);

    const events = await read();
    expect(stepsOf(events)).toEqual(Array.from({ length: 80 }, (_, index) => index + 1));
    expect(events[0]!.type).toBe("run.started");
    const superseded = await read(join(folder, "events.superseded.jsonl"));
    expect(stepsOf(superseded)).toEqual(Array.from({ length: 20 }, (_, index) => index + 41));
    const kept = events.slice(
      0,
      events.findIndex(({ type }) => type === "run.resumed"),
    );
    expect([...kept, ...superseded]).toHaveLength(first.length);
  });

  test("an event without a step goes with the time in which it stands", async () => {
    const phase = (name: string) => stampEvent({ type: "run.phase", name, seconds: 1 });
    const steps = run({ steps: 3 }).filter(({ type }) => type === "step.completed");
    const kept = [phase("before"), steps[0]!, phase("early")];
    const cut = [steps[1]!, phase("late")];
    await write([...kept, ...cut]);
    await write([], 1);
    expect(await read()).toEqual(kept);
    expect(await read(join(folder, "events.superseded.jsonl"))).toEqual(cut);
  });

  test("a resume before an earlier resume takes that one out too", async () => {
    await write(run({ steps: 30, isCompleted: false }));
    await write(
      [resumed(20), ...run({ steps: 30 }).filter((event) => "step" in event && event.step > 20)],
      20,
    );
    await write([resumed(10)], 10);
    const events = await read();
    expect(stepsOf(events)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    expect(events.filter(({ type }) => type === "run.resumed")).toHaveLength(1);
  });

  test("nothing is rewritten when nothing has to go", async () => {
    const events = run({ steps: 10 });
    await write(events);
    expect(await write([], 10)).toBe(0);
    expect(await read()).toEqual(events);
    await expect(readFile(join(folder, "events.superseded.jsonl"))).rejects.toThrow("ENOENT");
  });
});

describe("readEvents", () => {
  test("leaves a line out that is still being written, and tells who asks", async () => {
    const events = run({ steps: 2 });
    await write(events);
    await appendFile(path, '{"sch');
    expect(await read()).toEqual(events);
    const torn: string[] = [];
    for await (const _ of readEvents(path, (text) => torn.push(text)));
    expect(torn).toEqual(['{"sch']);
  });

  test("names the number of a damaged line", async () => {
    await write(run({ steps: 2 }));
    const lines = (await readFile(path, "utf8")).split("\n");
    lines[2] = lines[2]!.replace("{", "[");
    await writeFile(path, lines.join("\n"));
    await expect(read()).rejects.toThrow(`${path} line 3 is not an event`);
    await expect(openEventLog(path)).rejects.toThrow(`${path} line 3 is not an event`);
  });

  test("says that there is no log", async () => {
    await expect(read(join(folder, "none.jsonl"))).rejects.toThrow("there is no event log at");
  });

  test("characters that fall on the border of two pieces of the file stay whole", async () => {
    const long = (index: number) =>
      stampEvent({
        type: "sample.generated",
        step: index,
        prompt: "鲸",
        text: "鲸落万物生".repeat(9000 + index),
      });
    const events = Array.from({ length: 6 }, (_, index) => long(index));
    await write(events);
    expect(await read()).toEqual(events);
  });
});
