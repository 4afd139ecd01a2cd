import { describe, expect, test } from "vitest";
import { makeOracleDevice } from "../../test/support/gradient.ts";
import { normals } from "../../test/support/random.ts";
import type { QueueDevice } from "./device.ts";
import { add, copyInto, scale } from "./ops/elementwise.ts";
import { linear } from "./ops/linear.ts";
import { swiglu } from "./ops/swiglu.ts";
import { Parameter } from "./parameter.ts";
import { recomputed } from "./recomputed.ts";
import { Tape } from "./tape.ts";
import type { Tensor } from "./tensor.ts";

function weight(device: QueueDevice, N: number, K: number): Parameter {
  const parameter = Parameter.make(device, "w", [N, K], { compute: "f64", master: "f64", isTrained: true });
  parameter.master.write(normals(N * K, 1));
  parameter.grad?.write(new Float64Array(N * K));
  parameter.repack();
  return parameter;
}

function ones(device: QueueDevice, like: Tensor): Tensor {
  return device.from(new Float64Array(like.size).fill(1), like.shape, like.dtype);
}

describe("Tape", () => {
  test("adds the gradients of a tensor that feeds two ops", async () => {
    const device = makeOracleDevice();
    using tape = new Tape(device);
    const x = device.from([1, 2, 3], [3], "f64");
    const y = device.withTape(tape, () => add(add(x, x), x));
    tape.watch(x);
    tape.seed(y, ones(device, y));
    tape.backward();
    expect(Array.from((await tape.gradOf(x)!.read()) as Float64Array)).toEqual([3, 3, 3]);
  });

  test("never adds into a gradient that two branches share", async () => {
    const device = makeOracleDevice();
    using tape = new Tape(device);
    const [a, b] = [device.from([1], [1], "f64"), device.from([1], [1], "f64")];
    // `add` hands one gradient tensor to both of its inputs; b gets a second one on top.
    const y = device.withTape(tape, () => add(add(a, b), b));
    for (const tensor of [a, b]) tape.watch(tensor);
    tape.seed(y, ones(device, y));
    tape.backward();
    expect((await tape.gradOf(a)!.read())[0]).toBe(1);
    expect((await tape.gradOf(b)!.read())[0]).toBe(2);
  });

  test("leaves weight gradients to the bundle until it is run, and then gives the same", async () => {
    const device = makeOracleDevice();
    const results: number[][] = [];
    for (const isSplit of [false, true]) {
      const w = weight(device, 2, 3);
      using tape = new Tape(device);
      const x = device.from(normals(12, 7), [4, 3], "f64");
      const y = device.withTape(tape, () => linear(x, w, "f64"));
      tape.seed(y, ones(device, y));
      if (isSplit) {
        using bundle = tape.backwardInput();
        expect(bundle.length).toBe(1);
        expect(Array.from(await w.grad!.read())).toEqual([0, 0, 0, 0, 0, 0]);
        bundle.run();
      } else tape.backward();
      results.push(Array.from(await w.grad!.read()));
    }
    expect(results[1]).toEqual(results[0]);
  });

  test("holds what the backward pass needs beyond the forward scope, and gives all of it back", async () => {
    const device = makeOracleDevice();
    const w = weight(device, 2, 3);
    const before = device.arena.liveBytes;
    {
      using tape = new Tape(device);
      {
        using _scope = device.scope();
        const x = device.from(normals(12, 7), [4, 3], "f64");
        const y = device.withTape(tape, () => linear(x, w, "f64"));
        tape.seed(y, ones(device, y));
      }
      expect(device.arena.liveBytes).toBeGreaterThan(before);
      tape.backward();
    }
    expect(device.arena.liveBytes).toBe(before);
    await device.drain();
  });

  test("holds nothing that no gradient reads", () => {
    const device = makeOracleDevice();
    const before = device.arena.liveBytes;
    using tape = new Tape(device);
    {
      using _scope = device.scope();
      const x = device.from(normals(12, 7), [4, 3], "f64");
      device.withTape(tape, () => add(add(x, x), x));
    }
    expect(device.arena.liveBytes).toBe(before);
  });

  describe("that recomputes", () => {
    /** down(swiglu(up(x))), where the two in the middle are not kept; returns what the tape holds and the gradients. */
    async function run(recomputes: boolean, isSplit: boolean) {
      const device = makeOracleDevice();
      const [up, down] = [weight(device, 4, 3), weight(device, 2, 2)];
      const standing = device.arena.liveBytes;
      let held = 0;
      {
        using tape = new Tape(device, { recomputes });
        {
          using _scope = device.scope();
          const x = device.from(normals(15, 7), [5, 3], "f64");
          const build = (): Tensor =>
            linear(recomputed(swiglu(recomputed(linear(x, up, "f64")))), down, "f64");
          const y = device.withTape(tape, build);
          tape.seed(y, ones(device, y));
        }
        held = device.arena.liveBytes - standing;
        if (isSplit) {
          using bundle = tape.backwardInput();
          bundle.run();
        } else tape.backward();
      }
      expect(device.arena.liveBytes).toBe(standing);
      return { held, grads: [await up.grad!.read(), await down.grad!.read()] };
    }

    test.each([false, true])(
      "holds less and gives the same gradients; weight parts apart: %s",
      async (isSplit) => {
        const [kept, again] = [await run(false, isSplit), await run(true, isSplit)];
        expect(again.grads).toEqual(kept.grads);
        // Both middle tensors are made again, the second from the first.
        expect(again.held).toBeLessThan(kept.held - 64);
      },
    );

    test("gives a twin back at once that is made again beside another and that nothing reads", async () => {
      const device = makeOracleDevice();
      const w = weight(device, 2, 3);
      const standing = device.arena.liveBytes;
      {
        using tape = new Tape(device, { recomputes: true });
        {
          using _scope = device.scope();
          const x = device.from(normals(12, 7), [4, 3], "f64");
          const twins = [device.empty([4, 3], "f64"), device.empty([4, 3], "f64")];
          const make = (): void => {
            for (const twin of twins) copyInto(x, twin);
          };
          make();
          tape.record({
            op: "twins",
            inputs: [x],
            outputs: twins,
            saved: [],
            remakes: [{ outputs: twins, reads: [x], run: make }],
            inputGrad: () => [null],
          });
          for (const twin of twins) tape.recompute(twin);
          const y = device.withTape(tape, () => linear(twins[1]!, w, "f64"));
          tape.seed(y, ones(device, y));
        }
        tape.backward();
        expect(device.arena.liveBytes).toBe(standing);
      }
      await device.drain();
    });

    test("keeps a tensor that was changed in place by an op that cannot do so again", async () => {
      const grads: ArrayLike<number>[] = [];
      for (const recomputes of [false, true]) {
        const device = makeOracleDevice();
        const [up, down] = [weight(device, 3, 3), weight(device, 2, 3)];
        using tape = new Tape(device, { recomputes });
        {
          using _scope = device.scope();
          const x = device.from(normals(12, 7), [4, 3], "f64");
          const build = (): Tensor => {
            const y = linear(x, up, "f64");
            scale(y, 3);
            tape.record({ op: "scale", inputs: [y], outputs: [y], saved: [], inputGrad: (dy) => [dy] });
            return linear(recomputed(y), down, "f64");
          };
          const z = device.withTape(tape, build);
          tape.seed(z, ones(device, z));
        }
        tape.backward();
        grads.push(await down.grad!.read());
      }
      expect(grads[1]).toEqual(grads[0]);
    });

    test("keeps a tensor that its op cannot make again", async () => {
      const device = makeOracleDevice();
      using tape = new Tape(device, { recomputes: true });
      const w = weight(device, 2, 3);
      {
        using _scope = device.scope();
        const x = device.from(normals(12, 7), [4, 3], "f64");
        const y = device.withTape(tape, () => linear(recomputed(add(x, x)), w, "f64"));
        tape.seed(y, ones(device, y));
      }
      tape.backward();
      await device.drain();
    });
  });

  test("gives back a step that was given up", () => {
    const device = makeOracleDevice();
    const w = weight(device, 2, 3);
    const before = device.arena.liveBytes;
    {
      using tape = new Tape(device);
      using _scope = device.scope();
      const x = device.from(normals(12, 7), [4, 3], "f64");
      const y = device.withTape(tape, () => linear(x, w, "f64"));
      tape.seed(y, ones(device, y));
    }
    expect(device.arena.liveBytes).toBe(before);
  });
});
