import { describe, expect, test } from "vitest";
import { syntheticRun } from "../../test/support/syntheticRun.ts";
import { type RunEvent, stampEvent } from "../base/index.ts";
import { collectHistory } from "./log/history.ts";
import { mean, median, summarize } from "./summary.ts";

const summaryOf = async (events: Iterable<RunEvent>) => summarize(await collectHistory(events));

describe("RunHistory", () => {
  test("gives the events of a type in order, and the last of them", async () => {
    const history = await collectHistory(syntheticRun({ steps: 100 }));
    expect(history.of("step.completed").map(({ step }) => step)).toEqual([...Array(101).keys()].slice(1));
    expect(history.lastOf("evaluation.completed")?.step).toBe(100);
    expect(history.of("run.failed")).toEqual([]);
    expect(history.lastOf("run.failed")).toBeUndefined();
    expect(history.last?.type).toBe("run.completed");
  });
});

describe("summarize", () => {
  test("tells the last evaluation, the mean of the last losses and the median speed", async () => {
    const events = [...syntheticRun({ steps: 150 })];
    const steps = events.filter((event) => event.type === "step.completed");
    const last = events.findLast((event) => event.type === "evaluation.completed")!;
    const summary = await summaryOf(events);
    expect(summary).toMatchObject({
      runId: "2026-11-21-nano-1",
      status: "completed",
      step: 150,
      plannedSteps: 150,
      tokensSeen: 150 * 2048,
      numParameters: 13_600_000,
      validationLoss: last.loss,
      bitsPerByte: last.bitsPerByte,
      nextNextTokenAccuracy: last.nextNextTokenAccuracy,
    });
    const lastTwenty = steps.slice(-20).reduce((sum, { mainLoss }) => sum + mainLoss, 0) / 20;
    expect(summary?.trainLoss).toBeCloseTo(lastTwenty, 12);
    const slower = steps.filter(({ tokensPerSecond }) => tokensPerSecond < summary!.tokensPerSecond!);
    expect(slower).toHaveLength(75);
  });

  test("keeps the best bits per byte, also when the last are worse", async () => {
    const events = [...syntheticRun({ steps: 100 })];
    const worse = { ...events.findLast((event) => event.type === "evaluation.completed")!, bitsPerByte: 9 };
    const summary = await summaryOf([...events, worse]);
    expect(summary?.bitsPerByte).toBe(9);
    expect(summary?.bestBitsPerByte).toBeLessThan(3);
  });

  test("an evaluation that was not finite counts as not measured", async () => {
    const events = [...syntheticRun({ steps: 50 })].map((event) =>
      event.type === "evaluation.completed" ? { ...event, loss: null, bitsPerByte: null } : event,
    );
    expect(await summaryOf(events)).toMatchObject({ bitsPerByte: null, bestBitsPerByte: null });
  });

  test("nothing has been measured before the first step, and nothing begun before run.started", async () => {
    const events = [...syntheticRun({ steps: 1 })];
    expect(await summaryOf(events.slice(0, 1))).toMatchObject({
      step: 0,
      trainLoss: null,
      tokensPerSecond: null,
    });
    expect(await summaryOf([])).toBeNull();
  });

  test("a run that was started again before its first checkpoint has the later settings", async () => {
    const [started, ...rest] = syntheticRun({ steps: 5 });
    if (started?.type !== "run.started") throw new Error("a run starts with run.started");
    const again = { ...started, config: { seed: 2 }, plannedSteps: 7 };
    expect(await summaryOf([started, again, ...rest])).toMatchObject({
      config: { seed: 2 },
      plannedSteps: 7,
    });
  });

  test("the last word about the run is its status", async () => {
    const open = [...syntheticRun({ steps: 10, isCompleted: false })];
    const at = (minute: number) => new Date(Date.parse("2026-11-22T00:00:00Z") + minute * 60_000);
    const { version, environment } = open.find((event) => event.type === "run.started")!;
    const interrupted = stampEvent(
      {
        type: "run.interrupted",
        step: 10,
        signal: "SIGINT",
        checkpoint: null,
        resume: "minke train --resume",
      },
      at(1),
    );
    const resumed = stampEvent(
      {
        type: "run.resumed",
        version,
        config: { steps: 20 },
        environment,
        step: 10,
        checkpoint: "checkpoints/step-10",
        plannedSteps: 20,
        plannedTokens: 20 * 2048,
        repeatedSteps: 0,
      },
      at(2),
    );
    expect((await summaryOf(open))?.status).toBe("open");
    expect((await summaryOf([...open, interrupted]))?.status).toBe("interrupted");
    expect(await summaryOf([...open, interrupted, resumed])).toMatchObject({
      status: "open",
      plannedSteps: 20,
      config: { steps: 20 },
    });
  });
});

describe("mean and median", () => {
  test("of nothing are null", () => {
    expect([mean([]), median([])]).toEqual([null, null]);
  });

  test("the median takes the middle, or the mean of the two in the middle", () => {
    expect(median([3, 1, 100])).toBe(3);
    expect(median([4, 1, 100, 2])).toBe(3);
  });
});
