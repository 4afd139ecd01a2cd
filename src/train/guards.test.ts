import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { SpikeGuard } from "./guards.ts";

function warmed(): SpikeGuard {
  const guard = new SpikeGuard();
  for (let i = 0; i < 64; i++) guard.judge(3 + 0.05 * Math.sin(i), 1 + 0.1 * Math.cos(i));
  return guard;
}

describe("SpikeGuard", () => {
  test("takes ordinary steps, falling losses included", () => {
    const guard = warmed();
    expect(guard.judge(3.1, 1.1)).toEqual({ kind: "take" });
    expect(guard.judge(1.0, 0.5)).toEqual({ kind: "take" });
  });

  test.each([
    ["non-finite loss", Number.NaN, 1],
    ["non-finite gradient", 3, Number.POSITIVE_INFINITY],
    ["loss spike", 9, 1],
    ["gradient spike", 3, 50],
  ])("skips a %s", (reason, loss, norm) => {
    expect(warmed().judge(loss, norm)).toEqual({ kind: "skip", reason });
  });

  test("calls nothing a spike before it has seen enough", () => {
    const guard = new SpikeGuard();
    guard.judge(3, 1);
    expect(guard.judge(300, 100)).toEqual({ kind: "take" });
  });

  test("draws the line at six standard deviations", () => {
    for (const [loss, kind] of [
      [3.599, "take"],
      [3.601, "skip"],
    ] as const) {
      const guard = new SpikeGuard();
      for (let i = 0; i < 64; i++) guard.judge(3 + (i % 2 === 0 ? 0.1 : -0.1), 1);
      expect(guard.judge(loss, 1).kind, `${loss}`).toBe(kind);
    }
  });

  test("takes one per cent of the mean for the least deviation: noise on a plateau is no spike", () => {
    const guard = new SpikeGuard();
    for (let i = 0; i < 64; i++) guard.judge(3, 1);
    expect(guard.judge(3.17, 1.05)).toEqual({ kind: "take" });
    expect(guard.judge(3.2, 1)).toEqual({ kind: "skip", reason: "loss spike" });
  });

  test("judges from the 33rd step on", () => {
    for (const [steps, kind] of [
      [31, "take"],
      [32, "skip"],
    ] as const) {
      const guard = new SpikeGuard();
      for (let i = 0; i < steps; i++) guard.judge(3, 1);
      expect(guard.judge(9, 1).kind, `${steps}`).toBe(kind);
    }
  });

  test("looks back on 128 steps and no further", () => {
    const guard = new SpikeGuard();
    for (let i = 0; i < 128; i++) guard.judge(9, 1);
    for (let i = 0; i < 128; i++) guard.judge(3, 1);
    expect(guard.state.losses).toEqual(new Array(128).fill(3));
    expect(guard.state.norms).toHaveLength(128);
    expect(guard.judge(9, 1).kind).toBe("skip");
  });

  test("stops at the second repeat, and forgets skips once a step is taken", () => {
    const guard = warmed();
    const kinds = [Number.NaN, Number.NaN, 3, Number.NaN, Number.NaN, Number.NaN].map(
      (loss) => guard.judge(loss, 1).kind,
    );
    expect(kinds).toEqual(["skip", "skip", "take", "skip", "skip", "stop"]);
  });

  test("takes large gradients for a new level when they repeat and the loss does not rise", () => {
    const guard = warmed();
    const kinds = [50, 52, 51, 49, 55].map((norm) => guard.judge(3, norm).kind);
    expect(kinds).toEqual(["skip", "skip", "take", "take", "take"]);
  });

  test("takes no single large gradient for a new level because other steps before it were skipped", () => {
    const guard = warmed();
    const steps = [
      [Number.NaN, 1],
      [9, 1],
      [3, 50],
      [3, 51],
      [3, 52],
      [3, 53],
    ] as const;
    expect(steps.map(([loss, norm]) => guard.judge(loss, norm).kind)).toEqual([
      ...["skip", "skip", "skip", "skip", "take", "take"],
    ]);
  });

  test("counts large gradients anew after a step that was skipped for another reason", () => {
    const guard = warmed();
    const steps = [
      [3, 50],
      [3, 51],
      [Number.NaN, 1],
    ] as const;
    expect(steps.map(([loss, norm]) => guard.judge(loss, norm).kind)).toEqual(["skip", "skip", "stop"]);
    expect(guard.state.gradientSpikesInARow).toBe(0);
  });

  test("stops when the loss has risen with them", () => {
    const guard = warmed();
    expect([9, 9, 9].map((loss) => guard.judge(loss, 50).kind)).toEqual(["skip", "skip", "stop"]);
  });

  test("does not learn from what it skips", () => {
    const guard = warmed();
    const { losses } = guard.state;
    guard.judge(9, 1);
    expect(guard.state.losses).toEqual(losses);
  });

  test("judges the same after its state went through JSON, at whatever step", () => {
    const losses = fc.oneof(fc.constantFrom(Number.NaN, 9), fc.double({ min: 2.9, max: 3.1, noNaN: true }));
    const norms = fc.oneof(fc.constantFrom(Number.NaN, 50), fc.double({ min: 0.8, max: 1.2, noNaN: true }));
    fc.assert(
      fc.property(fc.array(fc.tuple(losses, norms), { maxLength: 60 }), fc.nat(60), (steps, stop) => {
        const whole = warmed();
        let parts = warmed();
        for (const [i, [loss, norm]] of steps.entries()) {
          if (i === stop) {
            const { state } = parts;
            parts = new SpikeGuard();
            parts.state = JSON.parse(JSON.stringify(state));
          }
          expect(parts.judge(loss, norm)).toEqual(whole.judge(loss, norm));
        }
        expect(parts.state).toEqual(whole.state);
      }),
    );
  });

  test("never skips five steps in a row, whatever comes: it takes one or stops", () => {
    const losses = fc.constantFrom(Number.NaN, 9, 3);
    const norms = fc.constantFrom(Number.POSITIVE_INFINITY, 50, 1e6, 1);
    fc.assert(
      fc.property(fc.array(fc.tuple(losses, norms), { minLength: 5, maxLength: 5 }), (steps) => {
        const guard = warmed();
        const kinds = steps.map(([loss, norm]) => guard.judge(loss, norm).kind);
        expect(kinds.some((kind) => kind !== "skip")).toBe(true);
      }),
    );
  });

  test("lets gradients that keep growing pass: two skips in each window that it needs to judge again", () => {
    const guard = warmed();
    const kinds = Array.from({ length: 200 }, (_, i) => guard.judge(3, 50 * 1.5 ** i).kind);
    expect(kinds).not.toContain("stop");
    expect(kinds.filter((kind) => kind === "skip").length).toBeLessThan(20);
  });
});
