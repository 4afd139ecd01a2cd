import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { exampleEvents } from "../../../test/support/exampleEvents.ts";
import type { RunEvent } from "../../base/index.ts";
import { openEventLog } from "./eventLog.ts";
import { readEvents } from "./eventReader.ts";

/** What a process did before it ended: a checkpoint every few steps, and where it was killed. */
interface Life {
  readonly steps: number;
  readonly every: number;
  /** Which of the checkpoints the next life starts from: 0 the newest, 1 the one before. */
  readonly back: number;
}

const lives = fc.array(
  fc.record({
    steps: fc.integer({ min: 1, max: 12 }),
    every: fc.integer({ min: 1, max: 5 }),
    back: fc.nat(2),
  }),
  { minLength: 1, maxLength: 5 },
);

const stepAt = (step: number): RunEvent => ({ ...exampleEvents["step.completed"], step });
const checkpointAt = (step: number): RunEvent => ({
  ...exampleEvents["checkpoint.written"],
  step,
  path: `checkpoints/step-${step}`,
});
const resumedAt = (step: number): RunEvent => ({ ...exampleEvents["run.resumed"], step });
const stepOf = (event: RunEvent): number => ("step" in event ? event.step : 0);

async function readAll(path: string): Promise<RunEvent[]> {
  const events: RunEvent[] = [];
  for await (const event of readEvents(path)) events.push(event);
  return events;
}

/** Lives one life after the other in one log, as a trainer would; tells how often each step was done. */
async function live(
  path: string,
  plan: readonly Life[],
): Promise<{ done: Map<number, number>; last: number }> {
  const done = new Map<number, number>();
  let checkpoints: number[] = [];
  let step = 0;
  for (const [index, { steps, every, back }] of plan.entries()) {
    step = index === 0 ? 0 : (checkpoints.at(-1 - Math.min(back, checkpoints.length)) ?? 0);
    checkpoints = checkpoints.filter((one) => one <= step);
    const { log } = await openEventLog(path, index === 0 ? undefined : step);
    log.emit(index === 0 ? exampleEvents["run.started"] : resumedAt(step));
    for (const end = step + steps; step < end; ) {
      step++;
      done.set(step, (done.get(step) ?? 0) + 1);
      log.emit(stepAt(step));
      log.emit(exampleEvents["run.phase"]);
      if (step % every !== 0) continue;
      log.emit(checkpointAt(step));
      checkpoints.push(step);
    }
    await log.close();
  }
  return { done, last: step };
}

describe("a run that was killed and resumed any number of times", () => {
  test("has a log with each step once and in order, and keeps every event that was ever written", async () => {
    const folder = await mkdtemp(join(tmpdir(), "minke-lives-"));
    const path = join(folder, "events.jsonl");
    const superseded = join(folder, "events.superseded.jsonl");
    await fc.assert(
      fc.asyncProperty(lives, async (plan) => {
        await Promise.all([rm(path, { force: true }), rm(superseded, { force: true })]);
        const { done, last } = await live(path, plan);
        const events = await readAll(path);
        const steps = events.filter(({ type }) => type === "step.completed").map(stepOf);
        expect(steps).toEqual(Array.from({ length: last }, (_, index) => index + 1));

        const numDone = [...done.values()].reduce((sum, times) => sum + times, 0);
        const repeated = numDone - steps.length;
        const kept = repeated === 0 ? [] : await readAll(superseded);
        expect(kept.filter(({ type }) => type === "step.completed")).toHaveLength(repeated);
      }),
      { numRuns: 40 },
    );
    await rm(folder, { recursive: true });
  });

  test("has a log in which no checkpoint lies after the step that the run went back to", async () => {
    const folder = await mkdtemp(join(tmpdir(), "minke-lives-"));
    const path = join(folder, "events.jsonl");
    await fc.assert(
      fc.asyncProperty(lives, async (plan) => {
        await rm(path, { force: true });
        await live(path, plan);
        const events = await readAll(path);
        let reached = 0;
        for (const event of events.filter((one) => "step" in one)) {
          expect(stepOf(event)).toBeGreaterThanOrEqual(
            event.type === "step.completed" ? reached + 1 : reached,
          );
          reached = stepOf(event);
        }
      }),
      { numRuns: 30 },
    );
    await rm(folder, { recursive: true });
  });
});
