import { describe, expect, test } from "vitest";
import { makeOracleDevice } from "../../test/support/gradient.ts";
import { makeNativeDevice, nativeIsMissing } from "../../test/support/native.ts";
import { NativeHub } from "./backend/native/hub.ts";
import { TracedBackend } from "./backend/native/traced.ts";
import { QueueDevice } from "./device.ts";
import { add, axpy, fill } from "./ops/elementwise.ts";
import { awaitMessages, postReceive, postSend } from "./ops/message.ts";
import type { Tensor } from "./tensor.ts";

/** y = (links + 1) x, by sums of which each but the last is given back as soon as it has been read. */
function chain(device: QueueDevice, x: Tensor, y: Tensor, links: number): void {
  using _scope = device.scope();
  let sum = x;
  for (let i = 0; i < links; i++) {
    const next = add(sum, x);
    if (sum !== x) device.giveUp(sum);
    sum = next;
  }
  fill(y, 0);
  axpy(sum, y, 1);
}

async function chains(device: QueueDevice): Promise<number[]> {
  using _scope = device.scope();
  const xs = [1, 10].map((value) => device.from(new Float32Array(4).fill(value), [4], "f32"));
  const ys = xs.map(() => device.empty([4], "f32"));
  const { liveBytes } = device.arena;
  device.interleave(
    () => chain(device, xs[0]!, ys[0]!, 5),
    () => chain(device, xs[1]!, ys[1]!, 4),
  );
  expect(device.arena.liveBytes).toBe(liveBytes);
  return Promise.all(ys.map(async (y) => (await y.read())[3]!));
}

/** Sends a tensor to itself and adds up what comes, twice; ends with x + 2. */
function conversation(device: QueueDevice, x: Tensor, ticket: number): void {
  for (let i = 0; i < 2; i++) {
    using came = device.temporary([4], "f32");
    postSend(x, { ticket, peer: 0, tag: ticket });
    postReceive(came, { ticket, peer: 0, tag: ticket });
    awaitMessages(device, ticket);
    fill(x, 1);
    axpy(came, x, 1);
  }
}

describe("QueueDevice.interleave", () => {
  test("runs one after the other on a backend that cannot defer", async () => {
    const device = makeOracleDevice();
    expect(await chains(device)).toEqual([6, 50]);
    await device.dispose();
  });

  describe.skipIf(nativeIsMissing)("on a native queue", () => {
    test("keeps from one what the other gives back, until both are built", async () => {
      const { device } = makeNativeDevice(undefined, 1);
      expect(await chains(device)).toEqual([6, 50]);
      await device.dispose();
    });

    test("lets one compute between the post and the await of the other", async () => {
      const traced = new TracedBackend(makeNativeDevice(undefined, 1).backend);
      const device = new QueueDevice(traced, 2 ** 20);
      traced.connect(new NativeHub(1, 1, 10).endpoint(0));
      const [x, y] = [device.from([0, 0, 0, 5], [4], "f32"), device.from([0, 0, 0, 7], [4], "f32")];
      await device.drain();
      traced.start();
      device.interleave(
        () => conversation(device, x, 1),
        () => conversation(device, y, 2),
      );
      expect([(await x.read())[3], (await y.read())[3]]).toEqual([7, 9]);
      const order = traced.take().flatMap(({ message, op }) => {
        if (message === null) return op === "axpy" ? ["adds"] : [];
        return message.part === "receive" ? [] : [`${message.part} ${message.ticket}`];
      });
      expect(order).toEqual([
        ...["send 2", "send 1", "await 2", "adds", "send 2"],
        ...["await 1", "adds", "send 1", "await 2", "adds", "await 1", "adds"],
      ]);
      await device.dispose();
    });

    test("does not begin inside itself", async () => {
      const { device } = makeNativeDevice(undefined, 1);
      const nothing = (): void => undefined;
      const inside = (): void => device.interleave(nothing, nothing);
      expect(() => device.interleave(inside, nothing)).toThrow(/is not interleaved again/);
      expect(() => device.interleave(nothing, inside)).toThrow(/is not interleaved again/);
      await device.dispose();
    });

    test("gives back what the first released, and goes on, when building breaks off", async () => {
      const { device } = makeNativeDevice(undefined, 1);
      const build = (): void => {
        using _scope = device.scope();
        device.empty([64], "f32");
      };
      const breakOff = (): void => {
        throw new RangeError("on purpose");
      };
      expect(() => device.interleave(build, breakOff)).toThrow(RangeError);
      expect(() => device.interleave(breakOff, build)).toThrow(RangeError);
      expect(device.arena.liveCount).toBe(0);
      expect(await chains(device)).toEqual([6, 50]);
      await device.dispose();
    });
  });
});
