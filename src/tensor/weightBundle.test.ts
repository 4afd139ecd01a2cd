import { describe, expect, test } from "vitest";
import { makeOracleDevice } from "../../test/support/gradient.ts";
import { add } from "./ops/elementwise.ts";
import type { Tensor } from "./tensor.ts";
import { WeightBundle } from "./weightBundle.ts";

const device = makeOracleDevice();

/** A bundle of three tasks over one tensor that only they hold; what they did is noted. */
function makeBundle(run: (task: number, x: Tensor) => void): WeightBundle {
  const bundle = new WeightBundle(device);
  using x = device.temporary([4], "f64");
  x.write([1, 2, 3, 4]);
  for (const task of [1, 2, 3]) bundle.push([x, null], () => run(task, x));
  return bundle;
}

describe("WeightBundle", () => {
  test("runs its tasks in order, once, and frees what they held and made", () => {
    const before = device.arena.liveBytes;
    const done: number[] = [];
    const bundle = makeBundle((task, x) => {
      add(x, x);
      done.push(task);
    });
    expect(bundle.length).toBe(3);
    expect(device.arena.liveBytes).toBeGreaterThan(before);
    bundle.run();
    bundle.run();
    expect(done).toEqual([1, 2, 3]);
    expect(device.arena.liveBytes).toBe(before);
  });

  test("gives back what it holds when it is disposed without having run", () => {
    const before = device.arena.liveBytes;
    {
      using bundle = makeBundle(() => expect.unreachable());
      expect(bundle.length).toBe(3);
    }
    expect(device.arena.liveBytes).toBe(before);
  });

  test("gives back what it holds when a task breaks off and the rest is disposed", () => {
    const before = device.arena.liveBytes;
    const done: number[] = [];
    {
      using bundle = makeBundle((task, x) => {
        add(x, x);
        if (task === 2) throw new Error("broken off");
        done.push(task);
      });
      expect(() => bundle.run()).toThrow("broken off");
      expect(bundle.length).toBe(1);
    }
    expect(done).toEqual([1]);
    expect(device.arena.liveBytes).toBe(before);
  });
});
