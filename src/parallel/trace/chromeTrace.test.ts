import { describe, expect, test } from "vitest";
import { planDualPipe } from "../schedule/dualPipe.ts";
import { simulate } from "../simulate/simulate.ts";
import { rankTrace } from "./chromeTrace.ts";
import { simulatedSpans } from "./simulated.ts";

describe("rankTrace", () => {
  test("gives each rank a process with a track for each category, times in microseconds", () => {
    const { traceEvents } = rankTrace([
      { rank: 1, spans: [{ name: "dispatch", category: "communication", start: 0.5, end: 0.75 }] },
      { rank: 0, spans: [] },
    ]);
    const named = traceEvents
      .filter(({ ph }) => ph === "M")
      .map(({ name, pid, tid, args }) => [name, pid, tid, args]);
    expect(named).toEqual([
      ["process_name", 0, undefined, { name: "rank 0" }],
      ["process_sort_index", 0, undefined, { sort_index: 0 }],
      ["thread_name", 0, 1, { name: "compute" }],
      ["thread_name", 0, 2, { name: "communication" }],
      ["thread_name", 0, 3, { name: "wait" }],
      ["process_name", 1, undefined, { name: "rank 1" }],
      ["process_sort_index", 1, undefined, { sort_index: 1 }],
      ["thread_name", 1, 1, { name: "compute" }],
      ["thread_name", 1, 2, { name: "communication" }],
      ["thread_name", 1, 3, { name: "wait" }],
    ]);
    expect(traceEvents.filter(({ ph }) => ph === "X")).toEqual([
      { name: "dispatch", ph: "X", pid: 1, tid: 2, cat: "communication", ts: 500_000, dur: 250_000 },
    ]);
  });

  test("says of a simulated pair which micro-batches it works on, and survives JSON", () => {
    const plan = planDualPipe({ ranks: 2, microBatches: 4 });
    const chunks = { forward: 1, backward: 2, weight: 1, overlapped: 3 };
    const trace = rankTrace(simulatedSpans(plan, simulate(plan, { chunks })));
    const { traceEvents } = JSON.parse(JSON.stringify(trace));
    const slices = traceEvents.filter(({ ph }: { ph: string }) => ph === "X");
    expect(slices.length).toBe(plan.actions.flat().length);
    expect(slices.find(({ name }: { name: string }) => name.includes("&"))).toEqual({
      ...{ name: "F<1&B>0", ph: "X", pid: 0, tid: 1, cat: "compute", ts: 5e6, dur: 3e6 },
      args: {
        forward: "micro-batch 3, stage 1, direction 1",
        backward: "micro-batch 0, stage 0, direction 0",
      },
    });
  });
});
