import { stripVTControlCharacters } from "node:util";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { syntheticRun } from "../../../test/support/syntheticRun.ts";
import type { RunEvent } from "../../base/index.ts";
import { advance, noProgress, type Progress, renderLine, secondsLeft } from "./progress.ts";

const events = [...syntheticRun({ steps: 1200, isCompleted: false })];
const progressAt = (step: number, list: readonly RunEvent[] = events): Progress =>
  list
    .slice(0, list.findIndex((event) => event.type === "step.completed" && event.step === step) + 1)
    .reduce(advance, noProgress);

const plain = { hasColor: false, hasBar: true };

describe("renderLine", () => {
  test.each([
    [
      200,
      " 412/1200  ━━━━━╌╌╌╌╌╌╌╌╌╌╌  loss 3.908  bpb 1.375  8,150 tok/s  peak 79.4%  max-vio 0.19  mtp 4.500  ETA 3m 24s",
    ],
    [100, " 412/1200  loss 3.908  bpb 1.375  8,150 tok/s  peak 79.4%  max-vio 0.19  mtp 4.500  ETA 3m 24s"],
    [80, " 412/1200  loss 3.908  bpb 1.375  8,150 tok/s  max-vio 0.19  ETA 3m 24s"],
    [60, " 412/1200  loss 3.908  bpb 1.375  8,150 tok/s  ETA 3m 24s"],
    [40, " 412/1200  loss 3.908  ETA 3m 24s"],
    [21, " 412/1200  loss 3.908"],
    [20, " 412/1200"],
    [4, " 412"],
  ])("at %i columns", (columns, line) => {
    expect(shape(renderLine(progressAt(412), columns, plain))).toBe(shape(line));
  });

  /** The figures are the fixture's; what is tested is which fields are there, and in which order. */
  function shape(line: string): string {
    return line.replaceAll(/\d/g, "0");
  }

  test("never takes more columns than there are, with colour or without", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 160 }), fc.integer({ min: 1, max: 1200 }), (columns, step) => {
        const progress = progressAt(step);
        expect(renderLine(progress, columns, plain).length).toBeLessThanOrEqual(columns);
        const coloured = stripVTControlCharacters(
          renderLine(progress, columns, { hasColor: true, hasBar: true }),
        );
        expect(coloured).toBe(renderLine(progress, columns, plain));
      }),
      { numRuns: 60 },
    );
  });

  test("a wider line keeps every field of a narrower one", () => {
    const fields = (columns: number) => renderLine(progressAt(700), columns, plain).trim().split(/ {2,}/);
    for (let columns = 30; columns < 140; columns++) {
      for (const field of fields(columns)) expect(fields(columns + 1)).toContain(field);
    }
  });

  test("fields that a model does not have are not shown", () => {
    const progress = progressAt(10);
    const dense = { ...progress.last!, expertLoad: [], mtpLosses: [], shareOfPeak: null };
    const line = renderLine({ ...progress, last: dense }, 200, plain);
    expect(line).not.toMatch(/max-vio|mtp|peak/);
    expect(line).toMatch(/loss .* bpb .* tok\/s .*ETA/);
  });

  test("is empty before the first step", () => {
    expect(renderLine(noProgress, 80, plain)).toBe("");
    expect(renderLine(advance(noProgress, events[0]!), 80, plain)).toBe("");
  });
});

describe("secondsLeft", () => {
  test("counts the pace so far, evaluations and checkpoints included", () => {
    const [first, now] = [progressAt(1), progressAt(600)];
    const pace = (now.lastMs - first.lastMs) / 1000 / 599;
    expect(pace).toBeGreaterThan(0.25);
    expect(secondsLeft(now)).toBeCloseTo(600 * pace, 6);
    expect(secondsLeft(progressAt(1200))).toBe(0);
  });

  test("is not guessed from one step", () => {
    expect(secondsLeft(progressAt(1))).toBeNull();
    expect(secondsLeft(noProgress)).toBeNull();
  });

  test("after a resume the pace is that of this process, and its plan counts", () => {
    const started = events[0]!;
    if (started.type !== "run.started") throw new Error("a run starts with run.started");
    const { version, environment, schema } = started;
    const resumed: RunEvent = {
      schema,
      time: "2026-11-25T00:00:00.000Z",
      type: "run.resumed",
      version,
      config: {},
      environment,
      step: 400,
      checkpoint: "checkpoints/step-400",
      plannedSteps: 500,
      plannedTokens: 500 * 2048,
      repeatedSteps: 0,
    };
    const tail = events
      .filter((event) => event.type === "step.completed" && event.step > 400)
      .map((event, index) => ({
        ...event,
        time: new Date(Date.parse(resumed.time) + 2000 * index).toISOString(),
      }));
    expect(secondsLeft(progressAt(450, [...events.slice(0, 500), resumed, ...tail]))).toBeCloseTo(50 * 2, 6);
  });
});
