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

  test("judges the same after its state went through JSON", () => {
    const [one, two] = [warmed(), new SpikeGuard()];
    two.state = JSON.parse(JSON.stringify(one.state));
    for (const [loss, norm] of [
      [9, 1],
      [3, 1],
      [3, 40],
      [Number.NaN, 1],
    ] as const) {
      expect(two.judge(loss, norm)).toEqual(one.judge(loss, norm));
    }
  });
});
