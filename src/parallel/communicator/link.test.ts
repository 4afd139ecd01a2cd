import { describe, expect, test } from "vitest";
import { nativeIsMissing } from "../../../test/support/native.ts";
import { everyRank } from "./everyRank.ts";
import { inProcess } from "./inProcess.ts";

const LINK = { latencySeconds: 0.05, bytesPerSecond: 10_000 };

describe.each([
  ["reference", false],
  ["native", nativeIsMissing],
] as const)("a link of given speed between %s ranks", (backend, isMissing) => {
  test.skipIf(isMissing)("delivers every message whole, one after another, not before its time", async () => {
    const ranks = inProcess(2, { backend, limitBytes: 2 ** 20, threads: 1, link: LINK });
    const begin = performance.now();
    const seconds = await everyRank(ranks, async (communicator) => {
      const { rank, device } = communicator;
      const messages = [0, 1].map((i) => device.from(new Float32Array(250).fill(i + 1), [250], "f32"));
      const exchanges = messages.map((x) =>
        rank === 0
          ? communicator.exchange([{ to: 1, x }], [])
          : communicator.exchange([], [{ from: 0, y: x }]),
      );
      for (const message of rank === 0 ? [] : messages) message.write(new Float32Array(250));
      for (const { wait } of exchanges) wait();
      const values = await Promise.all(messages.map(async (message) => (await message.read())[249]));
      expect(values).toEqual([1, 2]);
      for (const message of messages) message.dispose();
      return (performance.now() - begin) / 1000;
    });
    // Twice a thousand bytes on one wire, and the latency once; a timer may be a millisecond early.
    expect(seconds[1]).toBeGreaterThanOrEqual(0.249);
    for (const { device } of ranks) await device.dispose();
  });

  test.skipIf(isMissing)("takes no time for what a rank sends to itself", async () => {
    const slow = { latencySeconds: 3600, bytesPerSecond: 1 };
    const [communicator] = inProcess(1, {
      backend,
      limitBytes: 2 ** 20,
      threads: 1,
      link: slow,
      timeoutSeconds: 20,
    });
    const { device } = communicator!;
    using x = device.from([1, 2], [2], "f32");
    using y = device.temporary([2], "f32");
    communicator!.exchange([{ to: 0, x }], [{ from: 0, y }]).wait();
    expect([...(await y.read())]).toEqual([1, 2]);
    await device.dispose();
  });
});
