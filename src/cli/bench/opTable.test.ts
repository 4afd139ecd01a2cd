import { describe, expect, test } from "vitest";
import type { TracedCommand } from "../../tensor/index.ts";
import { chromeTrace } from "./chromeTrace.ts";
import { phasesOf, placesOf, profileStep } from "./opTable.ts";

/** Commands of 1 us each with 1 us between them. */
function commands(...ops: readonly (readonly [op: string, label?: string])[]): TracedCommand[] {
  return ops.map(([op, label = ""], i) => ({
    op,
    label,
    mark: "",
    message: null,
    begin: 5000 + 2000 * i,
    end: 6000 + 2000 * i,
    flops: op === "matmul" ? 4000 : 0,
    bytes: 8000,
  }));
}

describe("profileStep", () => {
  test("adds up time, FLOPs and bytes op by op, most expensive first, and says when nothing ran", () => {
    const { seconds, idleSeconds, ops } = profileStep(commands(["fill"], ["matmul"], ["matmul"]), 8e9);
    expect(seconds).toBeCloseTo(5e-6, 12);
    expect(idleSeconds).toBeCloseTo(2e-6, 12);
    expect(ops.map(({ op, calls }) => [op, calls])).toEqual([
      ["matmul", 2],
      ["fill", 1],
    ]);
    expect(ops[0]!.gflops).toBeCloseTo(4, 9);
    expect(ops[0]!.peakShare).toBeCloseTo(0.5, 9);
    expect(ops[0]!.stepShare).toBeCloseTo(0.4, 9);
    expect(ops[1]).toMatchObject({ gflops: null, peakShare: null });
    expect(ops[1]!.gigabytesPerSecond).toBeCloseTo(8, 9);
  });

  test("an op's seconds are all its calls together, and its share is those seconds of the step", () => {
    const { seconds, ops } = profileStep(commands(["a"], ["b"], ["a"]), 1);
    const { calls, seconds: spent, stepShare } = ops[0]!;
    expect([calls, spent * 1e9, stepShare]).toEqual([2, 2000, spent / seconds]);
  });

  test("the shares of all ops and of the time without any add up to the step", () => {
    const { seconds, idleSeconds, ops } = profileStep(commands(["a"], ["b"], ["a"], ["c"]), 1);
    expect(ops.reduce((sum, op) => sum + op.stepShare, idleSeconds / seconds)).toBeCloseTo(1, 12);
    expect(profileStep([], 1)).toEqual({ seconds: 0, ops: [], idleSeconds: 0 });
  });
});

describe("phasesOf", () => {
  test("follows micro-batches forward and backward in turn, then norm and update", () => {
    const ops = [
      "fill",
      "embedding",
      "matmul",
      "swigluBackward",
      "matmul",
      "embedding",
      "matmul",
      "matmulGradWeight",
    ];
    const phases = phasesOf(
      [...ops, "sumSquares", "gradNorm", "adamw", "updateRouterBias"].map((op) => ({ op })),
    );
    expect(phases).toEqual([
      "zero",
      ...["forward", "forward", "backward", "backward", "forward", "forward", "backward"],
      ...["norm", "norm", "update", "update"],
    ]);
  });

  test("Muon's update is one as AdamW's is", () => {
    const phases = phasesOf(["sumSquares", "muon", "adamw", "updateRouterBias"].map((op) => ({ op })));
    expect(phases).toEqual(["norm", "update", "update", "update"]);
  });
});

describe("placesOf", () => {
  test("a command without a label is where the one before it was; a parameter is in its layer", () => {
    const labels = [
      "",
      "model.embed_tokens.weight",
      "model.layers.3.mlp.gate.weight",
      "",
      "model.norm.weight",
    ];
    expect(placesOf(labels.map((label) => ({ label })))).toEqual([
      "",
      "model.embed_tokens.weight",
      "model.layers.3",
      "model.layers.3",
      "model.norm.weight",
    ]);
  });
});

describe("chromeTrace", () => {
  test("has complete events in microseconds, with phase, place and rates, on named tracks", () => {
    const traced = commands(["embedding", "model.embed"], ["matmul", "model.layers.0.q"], ["swigluBackward"]);
    const javascript = [{ name: "enqueue", begin: 0, end: 3000 }];
    const { traceEvents } = JSON.parse(JSON.stringify(chromeTrace(traced, javascript)));
    const tracks = Object.fromEntries(
      traceEvents
        .filter(({ ph }: { ph: string }) => ph === "M")
        .map(({ tid, args }: { tid: number; args: { name: string } }) => [args.name, tid]),
    );
    const on = (track: string) =>
      traceEvents.filter(({ ph, tid }: { ph: string; tid: number }) => ph === "X" && tid === tracks[track]);
    expect(on("queue (all threads)")).toHaveLength(3);
    expect(on("queue (all threads)")[1]).toEqual({
      name: "matmul",
      ph: "X",
      pid: 1,
      tid: 1,
      ts: 7,
      dur: 1,
      cat: "forward",
      args: {
        phase: "forward",
        place: "model.layers.0",
        parameter: "model.layers.0.q",
        "GFLOP/s": 4,
        "GB/s": 8,
      },
    });
    expect(on("phase").map(({ name, ts, dur }: Record<string, unknown>) => [name, ts, dur])).toEqual([
      ["forward", 5, 3],
      ["backward", 9, 1],
    ]);
    expect(on("JavaScript")).toMatchObject([{ name: "enqueue", ts: 0, dur: 3 }]);
  });
});
