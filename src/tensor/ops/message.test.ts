import { describe, expect, test } from "vitest";
import { nativeIsMissing } from "../../../test/support/native.ts";
import {
  disposeRanks,
  errorsOnRanks,
  makeRanks,
  onRanks,
  rankBackends,
} from "../../../test/support/ranks.ts";
import { BackendError, CollectiveError, DtypeError, ShapeError } from "../../base/index.ts";
import type { Communicator } from "../../parallel/index.ts";
import type { Backend } from "../backend/backend.ts";
import { NativeHub } from "../backend/native/hub.ts";
import { NativeBackend } from "../backend/native/native.ts";
import { PlanBackend } from "../backend/plan/plan.ts";
import { ReferenceHub } from "../backend/reference/hub.ts";
import { ReferenceBackend } from "../backend/reference/reference.ts";
import { QueueDevice } from "../device.ts";
import type { Dtype } from "../dtype.ts";
import { Recording } from "../recording.ts";
import type { Tensor } from "../tensor.ts";
import { add, copyInto, fill, fillKernel, scale } from "./elementwise.ts";
import { awaitMessages, messageKernels, postReceive, postSend } from "./message.ts";

const numbers = async (tensor: Tensor): Promise<number[]> => Array.from(await tensor.read());

/** The first line of what each rank says. */
function reasons(errors: readonly (Error | null)[]): (string | null)[] {
  return errors.map((error) => error?.message.split("\n")[0] ?? null);
}

/** A command that fails on any backend: it fills more than there is. */
function breakQueue({ device }: Communicator): void {
  using y = device.temporary([1], "i32");
  using offsets = device.from([5, 0], [2], "i32");
  postSend(y, { ticket: 9, peer: 0 }, { offsets, begin: 0, end: 1 });
}

describe.each(rankBackends)("messages between %s queues", (backend) => {
  test.each<Dtype>(["f32", "bf16", "f8e4m3", "e5m6", "i32"])("carry %s as it is", async (dtype) => {
    const values = [1, -2, 0.5, 4, 0, -0.25];
    const [, received] = await onRanks(backend, 2, async ({ rank, device }) => {
      const x = device.from(dtype === "i32" ? values.map(Math.round) : values, [6], dtype);
      if (rank === 0) postSend(x, { ticket: 0, peer: 1 });
      else {
        fill(device.temporary([1], "f32"), 0);
        const y = device.temporary([6], dtype);
        postReceive(y, { ticket: 0, peer: 0 });
        awaitMessages(device, 0);
        return [await numbers(y), await numbers(x)];
      }
      awaitMessages(device, 0);
      return device.drain().then(() => [[], []]);
    });
    expect(received![0]).toEqual(received![1]);
  });

  test("arrive in the order of their posts where sender, receiver and tag are the same", async () => {
    const [, received] = await onRanks(backend, 2, async ({ rank, device }) => {
      const tensors = [1, 2, 3].map((value) => device.from([value], [1], "f32"));
      if (rank === 0) {
        for (const x of tensors) postSend(x, { ticket: 0, peer: 1, tag: 4 });
        postSend(device.from([40], [1], "f32"), { ticket: 0, peer: 1, tag: 5 });
        awaitMessages(device, 0);
        await device.drain();
        return [];
      }
      const other = device.from([0], [1], "f32");
      postReceive(other, { ticket: 7, peer: 0, tag: 5 });
      for (const [ticket, y] of tensors.entries()) postReceive(y, { ticket, peer: 0, tag: 4 });
      for (const ticket of [2, 7, 0, 1]) awaitMessages(device, ticket);
      return Promise.all([...tensors, other].map(async (y) => (await numbers(y))[0]));
    });
    expect(received).toEqual([1, 2, 3, 40]);
  });

  test("reach their own sender, and may hold nothing", async () => {
    const [received] = await onRanks(backend, 1, async ({ device }) => {
      const [x, y] = [device.from([3, 4], [2], "f32"), device.from([0, 0], [2], "f32")];
      const nothing = device.temporary([0], "f32");
      postSend(nothing, { ticket: 1, peer: 0 });
      postSend(x, { ticket: 1, peer: 0 });
      postReceive(nothing, { ticket: 1, peer: 0 });
      postReceive(y, { ticket: 1, peer: 0 });
      awaitMessages(device, 1);
      return numbers(y);
    });
    expect(received).toEqual([3, 4]);
  });

  test("carry the rows between two offsets that only the queue knows", async () => {
    const [, received] = await onRanks(backend, 2, async ({ rank, device }) => {
      const x = device.from([10, 11, 20, 21, 30, 31], [3, 2], "f32");
      const [counts, shift] = [device.from([0, 0, 1], [3], "i32"), device.from([0, 1, 2], [3], "i32")];
      const y = device.from([7, 7, 7, 7, 7, 7, 7, 7], [4, 2], "f32");
      // The offsets are computed on the queue, after the post's place in JavaScript is long decided.
      const offsets = device.from([9, 9, 9], [3], "i32");
      copyInto(rank === 0 ? shift : counts, offsets);
      if (rank === 0) postSend(x, { ticket: 0, peer: 1 }, { offsets, begin: 1, end: 2 });
      else postReceive(y, { ticket: 0, peer: 0 }, { offsets, begin: 1, end: 2 });
      awaitMessages(device, 0);
      return numbers(y);
    });
    expect(received).toEqual([20, 21, 7, 7, 7, 7, 7, 7]);
  });

  test("give the same numbers whether something computes between post and await or not", async () => {
    const step = (overlaps: boolean): Promise<number[][]> =>
      onRanks(backend, 2, async ({ rank, device }) => {
        const x = device.from([1 + rank, 0.1, 0.7], [3], "f32");
        const y = device.temporary([3], "f32");
        const work = device.from([1, 2, 3], [3], "f32");
        const compute = (): void => {
          for (let i = 0; i < 50; i++) scale(work, 1.01);
        };
        if (!overlaps) compute();
        postSend(x, { ticket: 0, peer: 1 - rank });
        postReceive(y, { ticket: 0, peer: 1 - rank });
        if (overlaps) compute();
        awaitMessages(device, 0);
        return [...(await numbers(add(y, work))), ...(await numbers(work))];
      });
    expect(await step(true)).toEqual(await step(false));
  });

  test("are recorded and replayed with what is sent then", async () => {
    const sums = await onRanks(backend, 2, async ({ rank, device }) => {
      const [x, total] = [device.from([0], [1], "f32"), device.from([0], [1], "f32")];
      const recording = new Recording(device, () => {
        const y = device.empty([1], "f32");
        postSend(x, { ticket: 3, peer: 1 - rank });
        postReceive(y, { ticket: 3, peer: 1 - rank });
        scale(total, 10);
        awaitMessages(device, 3);
        copyInto(add(total, y), total);
      });
      for (const value of [1, 2, 3, 4]) {
        x.write([value + 4 * rank]);
        recording.run();
      }
      return numbers(total);
    });
    expect(sums).toEqual([[5678], [1234]]);
  });

  test("of another length than awaited end all ranks with the sender, the tag and both lengths", async () => {
    const errors = await errorsOnRanks(makeRanks(backend, 2), async ({ rank, device }) => {
      if (rank === 0) postSend(device.from([1, 2, 3], [3], "f32"), { ticket: 0, peer: 1, tag: 6 });
      const y = device.temporary([4], "f32");
      postReceive(y, { ticket: 0, peer: 1 - rank, tag: 6 });
      awaitMessages(device, 0);
      await device.drain();
    });
    const reason = "rank 1 got 12 bytes from rank 0 (tag 6) where 16 were awaited";
    expect(errors[1]).toBeInstanceOf(CollectiveError);
    expect(errors[1]!.message).toMatch(`awaitMessages failed: ${reason}`);
    expect(errors[0]!.message).toMatch(` failed: rank 1 failed: awaitMessages: ${reason}`);
  });

  test("to a rank that is not there end all ranks", async () => {
    const errors = await errorsOnRanks(makeRanks(backend, 2), async ({ rank, device }) => {
      const x = device.temporary([4], "f32");
      if (rank === 0) postSend(x, { ticket: 0, peer: 2 });
      else postReceive(x, { ticket: 0, peer: 0 });
      awaitMessages(device, 0);
      await device.drain();
    });
    expect(reasons(errors)).toEqual([
      "postSend failed: rank 0 sends to rank 2: there are ranks 0 to 1",
      expect.stringMatching(
        /^(awaitMessages|postReceive) failed: rank 0 failed: postSend: rank 0 sends to rank 2/,
      ),
    ]);
  });

  test("that never come end all ranks when the time is over, and name peer and tag", async () => {
    const started = performance.now();
    const errors = await errorsOnRanks(
      makeRanks(backend, 3, { timeoutSeconds: 0.2 }),
      async (communicator) => {
        const { rank, device } = communicator;
        const x = device.temporary([4], "f32");
        // Rank 0 sends once where rank 1 receives twice; rank 2 is dragged along.
        if (rank === 0) postSend(x, { ticket: 0, peer: 1, tag: 3 });
        if (rank === 1) for (const ticket of [0, 0]) postReceive(x, { ticket, peer: 0, tag: 3 });
        if (rank === 1) awaitMessages(device, 0);
        await new Promise((resolve) => setTimeout(resolve, rank === 1 ? 0 : 600));
        if (rank !== 1) awaitMessages(device, 0);
        await device.drain();
      },
    );
    const reason = "rank 1 waited 0.2 s for a message of rank 0 (tag 3)";
    expect(reasons(errors)).toEqual([
      expect.stringMatching(/^\w+ failed: rank 1 failed: awaitMessages: rank 1 waited 0\.2 s /),
      `awaitMessages failed: ${reason}`,
      `awaitMessages failed: rank 1 failed: awaitMessages: ${reason}`,
    ]);
    expect(performance.now() - started).toBeLessThan(10_000);
  });

  test("end with the reason of the rank whose queue failed", async () => {
    const errors = await errorsOnRanks(makeRanks(backend, 2), async (communicator) => {
      const { rank, device } = communicator;
      if (rank === 0) breakQueue(communicator);
      else {
        postReceive(device.temporary([4], "f32"), { ticket: 0, peer: 0 });
        awaitMessages(device, 0);
      }
      await device.drain();
    });
    expect(reasons(errors)).toEqual([
      "postSend failed: rows 5 to 0 are no range of 1 rows",
      expect.stringMatching(/failed: rank 0 failed: postSend: rows 5 to 0 are no range of 1 rows$/),
    ]);
  });

  test("that are open when a queue is disposed end the others' waits", async () => {
    const [one, other] = makeRanks(backend, 2);
    const waits = [one!, other!].map(({ rank, device }) => {
      postReceive(device.temporary([4], "f32"), { ticket: 0, peer: 1 - rank });
      awaitMessages(device, 0);
      return device.drain().catch((error: Error) => error.message);
    });
    await one!.device.dispose();
    const [own, others] = await Promise.all(waits);
    expect(own).toMatch(/disposed/);
    expect(others).toMatch("rank 0 failed: its queue was disposed with messages open");
    await other!.device.dispose();
  });

  test("let a queue that has no more of them be disposed in silence", async () => {
    const [one, other] = makeRanks(backend, 2);
    postSend(one!.device.from([6], [1], "f32"), { ticket: 0, peer: 1 });
    awaitMessages(one!.device, 0);
    await one!.device.drain();
    await one!.device.dispose();
    const y = other!.device.temporary([1], "f32");
    postReceive(y, { ticket: 0, peer: 0 });
    awaitMessages(other!.device, 0);
    expect(await numbers(y)).toEqual([6]);
    await other!.device.dispose();
  });

  test("leave the event loop free while a queue waits, and wait without a core", async () => {
    const ranks = makeRanks(backend, 2);
    const [one, other] = ranks;
    const y = other!.device.temporary([1], "f32");
    postReceive(y, { ticket: 0, peer: 0 });
    awaitMessages(other!.device, 0);
    const arrived = numbers(y);
    let turns = 0;
    const ticking = setInterval(() => turns++, 5);
    const before = process.cpuUsage();
    await new Promise((resolve) => setTimeout(resolve, 500));
    const { user, system } = process.cpuUsage(before);
    clearInterval(ticking);
    expect(turns).toBeGreaterThan(10);
    // Microseconds of half a second; the rest of the process takes a little too.
    expect(user + system).toBeLessThan(300_000);
    postSend(one!.device.from([5], [1], "f32"), { ticket: 0, peer: 1 });
    awaitMessages(one!.device, 0);
    expect(await arrived).toEqual([5]);
    await disposeRanks(ranks);
  });
});

describe("a message", () => {
  const device = new QueueDevice(new ReferenceBackend(), 2 ** 20);

  test("is refused where its numbers cannot travel", () => {
    const x = device.temporary([4], "f32");
    expect(() => postSend(x, { ticket: -1, peer: 0 })).toThrow(/postSend: ticket is -1/);
    expect(() => postReceive(x, { ticket: 0, peer: 0.5 })).toThrow(/postReceive: peer is 0.5/);
    expect(() => postSend(x, { ticket: 0, peer: 0, tag: 2 ** 32 })).toThrow(CollectiveError);
    expect(() => awaitMessages(device, Number.NaN)).toThrow(/awaitMessages: ticket is NaN/);
  });

  test("is refused where its range lies outside the offsets, or these are no integers", () => {
    const x = device.temporary([4, 2], "f32");
    const offsets = device.from([0, 4], [2], "i32");
    const to = { ticket: 0, peer: 0 };
    expect(() => postSend(x, to, { offsets, begin: 0, end: 2 })).toThrow(ShapeError);
    expect(() => postSend(x, to, { offsets, begin: 1, end: 0 })).toThrow(/offsets 1 to 0 are asked of \[2\]/);
    expect(() => postSend(x, to, { offsets: x, begin: 0, end: 1 })).toThrow(DtypeError);
  });

  test("on a queue without a connection poisons it and says so", async () => {
    const alone = new QueueDevice(new ReferenceBackend(), 2 ** 20);
    awaitMessages(alone, 0);
    await expect(alone.drain()).rejects.toThrow(
      /awaitMessages failed: the queue is not connected to other ranks/,
    );
    await alone.dispose();
  });

  test("costs the plan backend nothing but its commands", async () => {
    const backend = new PlanBackend();
    const plan = new QueueDevice(backend, 2 ** 20);
    backend.connect();
    postSend(plan.temporary([4], "f32"), { ticket: 0, peer: 3 });
    awaitMessages(plan, 0);
    expect([backend.flops, backend.commands]).toEqual([0, 2]);
    await plan.drain();
  });

  test("has no arithmetic: its kernels say whose work they are", () => {
    for (const kernel of messageKernels) {
      expect(() => kernel.reference({}, {}, {})).toThrow(/is carried out by a backend, not computed/);
    }
    expect(fillKernel.special).toBeNull();
  });
});

describe("connecting", () => {
  test("a reference queue to another kind of transport is refused", () => {
    expect(() => new ReferenceBackend().connect(1n)).toThrow(/the reference backend cannot be connected/);
  });

  test.skipIf(nativeIsMissing)("a native queue to a reference hub, or to no table, is refused", async () => {
    const backend = new NativeBackend({ threads: 1, reserveBytes: 2 ** 20 });
    expect(() => backend.connect(new ReferenceHub(2).endpoint(0))).toThrow(
      /cannot be connected to this transport/,
    );
    expect(() => backend.connect(0n)).toThrow(BackendError);
    expect(() => backend.connect(0n)).toThrow("0x0 is no address of a transport's table");
    expect(() => backend.connect(-8n)).toThrow("a table's address is a whole number of 64 bits");
    await backend.dispose();
  });

  test.each(rankBackends)("a second %s queue to one endpoint is refused", async (kind) => {
    const hub = kind === "reference" ? new ReferenceHub(2) : new NativeHub(2, 1);
    const make = (): Backend =>
      kind === "reference"
        ? new ReferenceBackend()
        : new NativeBackend({ threads: 1, reserveBytes: 2 ** 20 });
    const [first, second, endpoint] = [make(), make(), hub.endpoint(1)];
    first.connect(endpoint);
    expect(() => second.connect(endpoint)).toThrow(BackendError);
    expect(() => second.connect(endpoint)).toThrow("the endpoint of rank 1 is connected to a queue already");
    // Neither queue has come to harm.
    second.connect(hub.endpoint(0));
    for (const backend of [first, second]) {
      await backend.drain();
      await backend.dispose();
    }
  });

  test("native code has the message kernels", () => {
    if (nativeIsMissing) return;
    const backend = new NativeBackend({ threads: 1, reserveBytes: 2 ** 20 });
    expect(messageKernels.map(({ name }) => name).filter((name) => !backend.kernels.includes(name))).toEqual(
      [],
    );
    return backend.dispose();
  });
});
