import { describe, expect, test } from "vitest";
import { makeOracleDevice } from "../../test/support/gradient.ts";
import { BackendError, ReleasedTensorError, ShapeError } from "../base/index.ts";
import { ReferenceBackend } from "./backend/reference/reference.ts";
import { QueueDevice } from "./device.ts";
import { defineKernel } from "./kernel.ts";
import { add, cast, fill } from "./ops/elementwise.ts";

const broken = defineKernel({
  name: "broken",
  operands: { y: "out" },
  params: [],
  reference() {
    throw new RangeError("on purpose");
  },
});

describe("e5m6", () => {
  test("takes a byte and a half a number, and an odd number of them has no place", async () => {
    const device = makeOracleDevice();
    using _scope = device.scope();
    const x = device.from([1, -2, 0.3, 70000], [2, 2], "e5m6");
    expect(x.storage.bytes).toBe(6);
    expect([...(await x.read())]).toEqual([1, -2, 0.30078125, 65024]);
    expect([...(await x.rows(1, 2).read())]).toEqual([0.30078125, 65024]);
    expect(() => device.empty([3, 3], "e5m6")).toThrow(ShapeError);
  });
});

describe("scopes", () => {
  test("give back what was made inside them, and keep what is kept", async () => {
    const device = makeOracleDevice();
    const kept = (() => {
      using scope = device.scope();
      const a = device.from([1, 2], [2], "f32");
      return scope.keep(add(a, a));
    })();
    expect(device.arena.liveCount).toBe(1);
    expect(Array.from(await kept.read())).toEqual([2, 4]);
    kept.dispose();
    expect(device.arena.liveCount).toBe(0);
  });

  test("end in the reverse order of their beginning, or say so", () => {
    const device = makeOracleDevice();
    const [outer, inner] = [device.scope(), device.scope()];
    expect(() => outer[Symbol.dispose]()).toThrow(/reverse order of their beginning/);
    inner[Symbol.dispose]();
    outer[Symbol.dispose]();
  });

  test("hand a kept tensor to the scope around them", () => {
    const device = makeOracleDevice();
    {
      using _outer = device.scope();
      {
        using inner = device.scope();
        inner.keep(device.empty([4], "f32"));
      }
      expect(device.arena.liveCount).toBe(1);
    }
    expect(device.arena.liveCount).toBe(0);
  });

  test("refuse a tensor that is used after its scope", () => {
    const device = makeOracleDevice();
    const lost = (() => {
      using _scope = device.scope();
      return device.empty([2, 3], "f32");
    })();
    expect(() => add(lost, lost)).toThrow(ReleasedTensorError);
    expect(() => add(lost, lost)).toThrow(/scope\.keep/);
  });

  test("let a pending read see its numbers although the scope has ended", async () => {
    const device = makeOracleDevice();
    const reading = (() => {
      using _scope = device.scope();
      return device.from([7], [1], "f32").read();
    })();
    const other = device.from([9], [1], "f32");
    expect((await reading)[0]).toBe(7);
    expect((await other.read())[0]).toBe(9);
  });
});

describe("a tensor", () => {
  test("is seen through another shape without a copy", async () => {
    const device = makeOracleDevice();
    const x = device.from([1, 2, 3, 4, 5, 6], [2, 3], "f32");
    const before = device.arena.liveBytes;
    expect(x.reshape(3, -1).shape).toEqual([3, 2]);
    expect(Array.from(await x.rows(1, 2).read())).toEqual([4, 5, 6]);
    expect(device.arena.liveBytes).toBe(before);
    expect(() => x.reshape(4, 2)).toThrow(ShapeError);
    expect(() => x.rows(1, 3)).toThrow(/rows 1 to 3/);
  });

  test("cannot be given back twice, nor held again after its end", () => {
    const tensor = makeOracleDevice().temporary([4], "f32");
    tensor.dispose();
    expect(() => tensor.dispose()).toThrow(/released more often than it was held/);
    expect(() => tensor.storage.retain()).toThrow(/a released storage is retained/);
  });

  test("is rounded to nearest even when it becomes bf16", async () => {
    const device = makeOracleDevice();
    const x = device.from([1.00390625, 1.01171875, -3.1415927], [3], "f32");
    expect(Array.from(await cast(x, "bf16").read())).toEqual([1, 1.015625, -3.140625]);
  });
});

describe("a failing command", () => {
  test("poisons the queue: one error for every read and drain, later ops are skipped", async () => {
    const device = new QueueDevice(new ReferenceBackend(), 1 << 20);
    const y = device.empty([1], "f32");
    fill(y, 1);
    const before = y.read();
    device.run(broken, { y }, {}, "model.layers.3.mlp");
    fill(y, 2);
    const after = y.read();
    expect((await before)[0]).toBe(1);
    const error: unknown = await after.catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(BackendError);
    expect(String(error)).toMatch(/broken failed at model\.layers\.3\.mlp[\s\S]*on purpose/);
    await expect(device.drain()).rejects.toBe(error);
    await device.dispose();
  });
});
