import { describe, expect, test } from "vitest";
import { makeOracleDevice } from "../../test/support/gradient.ts";
import { normals } from "../../test/support/random.ts";
import { ShapeError } from "../base/index.ts";
import { ALIGNMENT } from "./arena.ts";
import type { QueueDevice } from "./device.ts";
import type { TileFormat } from "./fp8Format.ts";
import { add, copyInto, scale } from "./ops/elementwise.ts";
import { keptAs } from "./ops/fp8/keptAs.ts";
import { dequantizeTiles, quantizeTiles } from "./ops/fp8/quantizeTiles.ts";
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

  test("lets the later op add what the earlier ones have sent, and gets the same sum", async () => {
    const device = makeOracleDevice();
    const [w, v] = [weight(device, 2, 3), weight(device, 5, 3)];
    const run = async (adds: boolean): Promise<{ readonly dx: number[]; readonly ran: string[] }> => {
      using _scope = device.scope();
      using tape = new Tape(device);
      const record = tape.record.bind(tape);
      tape.record = (entry) => {
        const { inputGradOnto: _, ...apart } = entry;
        record(adds ? entry : apart);
      };
      const x = device.from(normals(12, 7), [4, 3], "f64");
      const ys = device.withTape(tape, () => [linear(x, w, "f64"), linear(x, v, "f64"), linear(x, w, "f64")]);
      tape.watch(x);
      for (const y of ys) tape.seed(y, ones(device, y));
      const ran: string[] = [];
      const { run: enqueue } = device;
      device.run = (kernel, ...rest) => {
        ran.push(kernel.name);
        enqueue.call(device, kernel, ...rest);
      };
      tape.backward();
      device.run = enqueue;
      return { dx: Array.from(await tape.gradOf(x)!.read()), ran: ran.filter((name) => name === "add") };
    };
    const before = device.arena.liveBytes;
    const [onto, apart] = [await run(true), await run(false)];
    expect(device.arena.liveBytes).toBe(before);
    expect([onto.ran.length, apart.ran.length]).toEqual([0, 2]);
    for (const [i, value] of onto.dx.entries()) expect(value).toBeCloseTo(apart.dx[i]!, 12);
  });

  test("refuses a sum with the gradient of a part, instead of losing the rest", () => {
    const device = makeOracleDevice();
    const w = weight(device, 2, 3);
    using tape = new Tape(device);
    const x = device.from(normals(12, 7), [4, 3], "f64");
    // The part is read first, so that its gradient comes on top of the whole one's.
    const ys = device.withTape(tape, () => [linear(x.rows(0, 2), w, "f64"), linear(x, w, "f64")]);
    for (const y of ys) tape.seed(y, ones(device, y));
    expect(() => tape.backward()).toThrow(ShapeError);
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

describe("what is kept as tiles", () => {
  const format: TileFormat = {
    dtype: "f8e4m3",
    powerOfTwo: false,
    floor: 0,
    width: 1,
    scaling: "tile",
  };
  const [R, F] = [4, 32];

  /** dx of swiglu over a tensor that an op has made, and what the tape held between the ways. */
  async function gradient(keep: (x: Tensor) => Tensor): Promise<{ readonly dx: Float32Array; held: number }> {
    const device = makeOracleDevice();
    using tape = new Tape(device);
    using x = device.temporary([R, 2 * F], "f32");
    x.write(normals(R * 2 * F, 7));
    const standing = device.arena.liveBytes;
    {
      using _scope = device.scope();
      const y = device.withTape(tape, () => swiglu(keep(add(x, x)), "f32"));
      tape.watch(x);
      tape.seed(y, ones(device, y));
    }
    const held = device.arena.liveBytes - standing;
    tape.backward();
    return { dx: (await tape.gradOf(x)!.read()) as Float32Array, held };
  }

  test("is read back rounded: the gradient is that of the rounded numbers, in fewer bytes", async () => {
    const [exact, kept] = [await gradient((x) => x), await gradient((x) => keptAs(x, format))];
    expect(await gradient((x) => keptAs(x, null))).toEqual(exact);
    expect(exact.held - kept.held).toBe(R * 2 * F * 4 - R * 2 * F - ALIGNMENT);
    const device = makeOracleDevice();
    using _scope = device.scope();
    const sum = device.from(
      normals(R * 2 * F, 7).map((value) => 2 * value),
      [R, 2 * F],
      "f32",
    );
    const rounded = dequantizeTiles(quantizeTiles(sum, format), "f32");
    using tape = new Tape(device);
    const y = device.withTape(tape, () => swiglu(rounded, "f32"));
    tape.watch(rounded);
    tape.seed(y, ones(device, y));
    tape.backward();
    const wanted = (await tape.gradOf(rounded)!.read()) as Float32Array;
    // add hands on the gradient of each of its two equal inputs.
    expect(kept.dx).toEqual(wanted.map((value) => 2 * value));
    expect(kept.dx).not.toEqual(exact.dx);
  });

  test("makes again, of tiles, what is always recomputed from it, and gives all of it back", async () => {
    const device = makeOracleDevice();
    const w = weight(device, 2, F);
    using x = device.temporary([R, 2 * F], "f32");
    x.write(normals(R * 2 * F, 7));
    const standing = device.arena.liveBytes;
    const names: string[] = [];
    const { run } = device;
    device.run = (kernel, ...rest) => {
      names.push(kernel.name);
      run.call(device, kernel, ...rest);
    };
    {
      using tape = new Tape(device);
      {
        using _scope = device.scope();
        const hidden = device.withTape(tape, () => {
          const gateUp = keptAs(add(x, x), format);
          return linear(recomputed(swiglu(gateUp, "f32"), "always"), w, "f32");
        });
        tape.seed(hidden, ones(device, hidden));
      }
      names.length = 0;
      tape.backward();
    }
    // Weight gradient and SwiGLU's own both need the input: it is read back once.
    expect(names.filter((name) => name === "dequantizeTiles")).toHaveLength(1);
    expect(names.indexOf("swiglu")).toBe(names.indexOf("dequantizeTiles") + 1);
    expect(device.arena.liveBytes).toBe(standing);
  });
});
