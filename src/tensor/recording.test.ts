import { afterAll, describe, expect, test } from "vitest";
import { makeOracleDevice } from "../../test/support/gradient.ts";
import { makeNativeDevice, nativeIsMissing } from "../../test/support/native.ts";
import type { QueueDevice } from "./device.ts";
import { HostScalar } from "./hostScalar.ts";
import { add, axpyKernel, copyInto, fillKernel } from "./ops/elementwise.ts";
import { Recording } from "./recording.ts";
import type { Tensor } from "./tensor.ts";

const native = nativeIsMissing ? null : makeNativeDevice(undefined, 2, 2 ** 24).device;
const devices: [string, QueueDevice][] = [["reference", makeOracleDevice()]];
if (native !== null) devices.push(["native", native]);

afterAll(() => native?.dispose());

interface Sum {
  readonly x: Tensor;
  readonly total: Tensor;
  readonly alpha: HostScalar;
  readonly recording: Recording;
  /** How often the recording has been built. */
  readonly built: () => number;
}

/** total = 2 * total + alpha * x, by way of temporaries. */
function makeSum(device: QueueDevice): Sum {
  const [x, total] = [device.temporary([3], "f32"), device.temporary([3], "f32")];
  const alpha = new HostScalar();
  let built = 0;
  total.write([0, 0, 0]);
  const recording = new Recording(device, () => {
    built++;
    const doubled = add(total, total);
    device.run(axpyKernel, { x, y: doubled }, { n: 3, alpha });
    copyInto(doubled, total);
  });
  return { x, total, alpha, recording, built: () => built };
}

async function runOnce({ x, total, alpha, recording }: Sum, values: number[], by: number): Promise<number[]> {
  x.write(values);
  alpha.value = by;
  recording.run();
  return Array.from(await total.read());
}

describe.each(devices)("a recording, %s", (name, device) => {
  const builds = (times: number): number => (name === "native" ? 1 : times);

  test("does again what it did, with the inputs and host scalars of then", async () => {
    const sum = makeSum(device);
    expect(await runOnce(sum, [1, 2, 3], 1)).toEqual([1, 2, 3]);
    expect(await runOnce(sum, [1, 0, 1], 10)).toEqual([12, 4, 16]);
    expect(await runOnce(sum, [0, 0, 1], -1)).toEqual([24, 8, 31]);
    expect(sum.built()).toBe(builds(3));
  });

  test("takes no memory when it has run, replayed or not", async () => {
    const sum = makeSum(device);
    const before = [device.arena.liveBytes, device.arena.liveCount];
    for (let i = 0; i < 3; i++) {
      await runOnce(sum, [1, 1, 1], 1);
      expect([device.arena.liveBytes, device.arena.liveCount]).toEqual(before);
    }
  });

  test("is built anew where its memory is another's now, and disturbs nothing there", async () => {
    const sum = makeSum(device);
    await runOnce(sum, [1, 2, 3], 1);
    const guest = device.temporary([3], "f32");
    guest.write([7, 8, 9]);
    expect(await runOnce(sum, [0, 0, 0], 1)).toEqual([2, 4, 6]);
    expect(Array.from(await guest.read())).toEqual([7, 8, 9]);
    expect(sum.built()).toBe(2);
    guest.dispose();
    expect(await runOnce(sum, [0, 0, 0], 1)).toEqual([4, 8, 12]);
  });

  test("forgets what it noted when building it anew breaks off", async () => {
    const [x, total] = [device.from([1, 2, 3], [3], "f32"), device.temporary([3], "f32")];
    let breaksOff = false;
    const recording = new Recording(device, () => {
      const doubled = add(x, x);
      if (breaksOff) throw new Error("broken off");
      copyInto(doubled, total);
    });
    recording.run();
    const guest = device.from([7, 8, 9], [3], "f32");
    breaksOff = true;
    expect(() => recording.run()).toThrow("broken off");
    breaksOff = false;
    recording.run();
    expect(Array.from(await total.read())).toEqual([2, 4, 6]);
    expect(Array.from(await guest.read())).toEqual([7, 8, 9]);
    for (const tensor of [x, total, guest]) tensor.dispose();
  });

  test("runs in order with what is enqueued, written and read around it", async () => {
    const sum = makeSum(device);
    await runOnce(sum, [1, 1, 1], 1);
    const reads: Promise<ArrayLike<number>>[] = [];
    for (const [value, by] of [
      [1, 2],
      [10, 3],
      [100, 4],
    ] as const) {
      sum.x.write([value, value, value]);
      sum.alpha.value = by;
      sum.recording.run();
      reads.push(sum.total.read());
    }
    const totals = (await Promise.all(reads)).map((values) => values[0]);
    expect(totals).toEqual([4, 38, 476]);
  });

  test("refuses to read or to write while it is built, and to begin inside another", async () => {
    const x = device.temporary([1], "f32");
    const inside = (build: () => void): (() => void) => {
      const recording = new Recording(device, build);
      return () => recording.run();
    };
    expect(inside(() => x.write([1]))).toThrow(/writing precedes a recording/);
    let read: Promise<unknown> | undefined;
    inside(() => {
      read = x.read();
    })();
    await expect(read).rejects.toThrow(/reading follows a recording/);
    expect(inside(inside(() => undefined))).toThrow(/does not begin inside another/);
    // A build that threw leaves nothing behind.
    x.write([5]);
    expect(Array.from(await x.read())).toEqual([5]);
    x.dispose();
  });

  test("refuses to keep memory that it has taken", () => {
    const kept: Tensor[] = [];
    const recording = new Recording(device, () => kept.push(device.temporary([1], "f32")));
    expect(() => recording.run()).toThrow(/is released when it ends/);
    for (const tensor of kept) tensor.dispose();
  });
});

describe.skipIf(nativeIsMissing)("a command that fails in a replay", () => {
  test("is named with its place, as if it had been enqueued", async () => {
    const { device } = makeNativeDevice(undefined, 1, 2 ** 20);
    const y = device.temporary([4], "f32");
    const n = new HostScalar(4);
    const recording = new Recording(device, () => {
      device.run(fillKernel, { y }, { n: 4, value: 1 }, "first");
      device.run(fillKernel, { y }, { n, value: 2 }, "layers.7.second");
    });
    recording.run();
    recording.run();
    expect(Array.from(await y.read())).toEqual([2, 2, 2, 2]);
    n.value = 2 ** 30;
    recording.run();
    await expect(y.read()).rejects.toThrow(/^fill at layers\.7\.second failed: .*1073741824 numbers of f32/);
    await device.dispose();
  });
});
