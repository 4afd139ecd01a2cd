import { describe, expect, test } from "vitest";
import { CheckpointError } from "../base/index.ts";
import { SpikeGuard } from "./guards.ts";
import { type LoopState, parseLoopState } from "./loopState.ts";

const state: LoopState = {
  step: 7,
  updates: 6,
  rowsSeen: 14,
  tokensSeen: 112,
  data: { epoch: 1, row: 4 },
  guard: { losses: [3, 2.5], norms: [1, 0.5], skippedInARow: 2, gradientSpikesInARow: 1 },
  validationLoss: null,
};

describe("parseLoopState", () => {
  test("gives back what went through JSON, number for number", () => {
    expect(parseLoopState(JSON.parse(JSON.stringify(state)), "state.json")).toEqual(state);
  });

  test("takes the state of a guard that did not count large gradients apart", () => {
    const { losses, norms, skippedInARow } = state.guard;
    const old = { ...state, guard: { losses, norms, skippedInARow } };
    const guard = new SpikeGuard();
    guard.state = parseLoopState(old, "state.json").guard;
    expect(guard.state).toEqual({ ...state.guard, gradientSpikesInARow: 0 });
  });

  test.each<[string, unknown, RegExp]>([
    ["nothing", undefined, /state\.json: loop is not what a run stores/],
    ["a position without its row", { ...state, data: { epoch: 1 } }, /loop\.data\.row/],
    ["a step that is no number", { ...state, step: "7" }, /loop\.step/],
    ["no guard", { ...state, guard: undefined }, /loop\.guard/],
    ["half a step", { ...state, updates: 0.5 }, /loop\.updates/],
  ])("refuses %s, and names the key", (_, value, says) => {
    expect(() => parseLoopState(value, "state.json")).toThrow(CheckpointError);
    expect(() => parseLoopState(value, "state.json")).toThrow(says);
  });
});
