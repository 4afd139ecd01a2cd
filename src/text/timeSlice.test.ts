import { afterEach, describe, expect, test, vi } from "vitest";
import { TimeSlice } from "./timeSlice.ts";

function work(milliseconds: number): void {
  const end = performance.now() + milliseconds;
  while (performance.now() < end);
}

describe("TimeSlice", () => {
  afterEach(() => {
    vi.useRealTimers();
  });

  test("it is over after less than 10 ms, and a new one begins with the next turn", async () => {
    vi.useFakeTimers({ toFake: ["performance"] });
    const slice = new TimeSlice();
    vi.advanceTimersByTime(5);
    expect(slice.isOver).toBe(false);
    vi.advanceTimersByTime(4);
    expect(slice.isOver).toBe(true);
    await slice.next();
    expect(slice.isOver).toBe(false);
  });

  test("timers fire between two slices", async () => {
    let fired = false;
    setTimeout(() => {
      fired = true;
    }, 0);
    const slice = new TimeSlice();
    for (let turn = 0; turn < 3; turn++) {
      work(5);
      await slice.next();
    }
    expect(fired).toBe(true);
  });

  test("an aborted signal throws its reason at the start and at the next turn", async () => {
    const reason = new Error("enough");
    expect(() => new TimeSlice(AbortSignal.abort(reason))).toThrow(reason);
    const controller = new AbortController();
    const slice = new TimeSlice(controller.signal);
    await slice.next();
    controller.abort(reason);
    await expect(slice.next()).rejects.toBe(reason);
  });
});
