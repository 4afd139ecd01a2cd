import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { makeNativeDevice, nativeIsMissing } from "../../../../test/support/native.ts";
import { QueueDevice } from "../../device.ts";
import { fill, scale } from "../../ops/elementwise.ts";
import { allKernels } from "../../ops/kernels.ts";
import { linear } from "../../ops/linear.ts";
import { awaitMessages, postReceive, postSend } from "../../ops/message.ts";
import { pause } from "../../ops/pause.ts";
import { Parameter } from "../../parameter.ts";
import { Recording } from "../../recording.ts";
import { NativeHub } from "./hub.ts";
import { TracedBackend } from "./traced.ts";

describe.skipIf(nativeIsMissing)("TracedBackend", () => {
  let traced: TracedBackend;
  let device: QueueDevice;
  let w: Parameter;

  beforeAll(() => {
    traced = new TracedBackend(makeNativeDevice(undefined, 2).backend);
    device = new QueueDevice(traced, 2 ** 30);
    w = Parameter.make(device, "layers.0.w", [32, 64], { compute: "bf16", master: "f32", isTrained: false });
    w.master.write(new Float32Array(32 * 64).fill(1));
    w.repack();
  });
  afterAll(() => device.dispose());

  const product = (): void => {
    using _scope = device.scope();
    linear(device.from(new Float32Array(16 * 64).fill(1), [16, 64], "f32"), w, "f32");
  };

  test("each command has its op, its place, its FLOPs, its bytes and times in order", async () => {
    await device.drain();
    traced.start();
    product();
    product();
    await device.drain();
    const [first, second] = traced.take();
    traced.stop();
    expect(first).toMatchObject({ op: "matmul", label: "layers.0.w", flops: 2 * 16 * 32 * 64 });
    // x and y in f32, the packed weight in bf16.
    expect(first!.bytes).toBe(4 * 16 * 64 + 2 * 32 * 64 + 4 * 16 * 32);
    expect(first!.end).toBeGreaterThan(first!.begin);
    expect(second!.begin).toBeGreaterThanOrEqual(first!.end);
  });

  test("each take has what ran since the one before, and nothing from outside of the trace", async () => {
    product();
    await device.drain();
    traced.start();
    expect(traced.take()).toEqual([]);
    product();
    await device.drain();
    const [first] = traced.take();
    product();
    await device.drain();
    const second = traced.take();
    expect(second).toHaveLength(1);
    expect(second[0]!.begin).toBeGreaterThan(first!.end);
    traced.stop();
    product();
    await device.drain();
    expect(traced.take()).toEqual([]);
  });
});

describe.skipIf(nativeIsMissing)("a traced recording", () => {
  test("is replayed in one call, and every replay is noted as it was built, marks included", async () => {
    const traced = new TracedBackend(makeNativeDevice(undefined, 1).backend);
    const device = new QueueDevice(traced, 2 ** 20);
    const y = device.temporary([4], "f32");
    let builds = 0;
    const recording = new Recording(device, () => {
      builds++;
      device.mark("filling");
      fill(y, 1);
      device.mark("doubling");
      scale(y, 2);
    });
    recording.run();
    await device.drain();
    traced.start();
    recording.run();
    fill(y, 3);
    recording.run();
    await device.drain();
    expect(builds).toBe(1);
    expect(traced.take().map(({ op, mark }) => [op, mark])).toEqual([
      ["fill", "filling"],
      ["scale", "doubling"],
      ["fill", "doubling"],
      ["fill", "filling"],
      ["scale", "doubling"],
    ]);
    expect([...(await y.read())]).toEqual([2, 2, 2, 2]);
    y.dispose();
    await device.dispose();
  });

  test("says of a message which part it is, with whom and how long", async () => {
    const traced = new TracedBackend(makeNativeDevice(undefined, 1).backend);
    const device = new QueueDevice(traced, 2 ** 20);
    traced.connect(new NativeHub(1, 1, 10).endpoint(0));
    using x = device.temporary([3], "f32");
    await device.drain();
    traced.start();
    postSend(x, { ticket: 4, peer: 0, tag: 9 });
    postReceive(x, { ticket: 4, peer: 0, tag: 9 });
    awaitMessages(device, 4);
    pause(device, 0.001);
    await device.drain();
    expect(traced.take().map(({ message }) => message)).toEqual([
      { part: "send", ticket: 4, peer: 0, tag: 9, bytes: 12 },
      { part: "receive", ticket: 4, peer: 0, tag: 9, bytes: 12 },
      { part: "await", ticket: 4, peer: null, tag: null, bytes: 0 },
      null,
    ]);
    await device.dispose();
  });
});

describe("Kernel.bytes", () => {
  const kernel = (name: string) => allKernels.find((one) => one.name === name)!;

  test("counts what is updated in place twice, and absent operands not at all", () => {
    const { bytes } = kernel("matmulGradWeight");
    expect(bytes({}, [100, 200, 1000])).toBe(2300);
    expect(kernel("matmul").bytes({}, [100, 200, 0, 50])).toBe(350);
  });

  test("counts of an embedding table only the rows that the tokens have", () => {
    const params = { T: 10, D: 8, V: 100, round: 0 };
    expect(kernel("embedding").bytes(params, [40, 3200, 320])).toBe(40 + 320 + 320);
    expect(kernel("embeddingGrad").bytes(params, [40, 320, 3200, 444])).toBe(40 + 320 + 640 + 444);
  });
});
