import { describe, expect, test } from "vitest";
import { nativeIsMissing } from "../../../test/support/native.ts";
import { BackendError } from "../../base/index.ts";
import { fill } from "../../tensor/index.ts";
import { everyRank } from "../communicator/everyRank.ts";
import { inProcess } from "../communicator/inProcess.ts";
import { offsetOf } from "./clock.ts";
import { RankTracer } from "./rankTracer.ts";

describe("offsetOf", () => {
  test("is what makes the way there as long as the way back", () => {
    // Rank 0's clock is 100 ahead; one way takes 3.
    expect(offsetOf([{ came: 113, sent: 114 }], [{ sent: 10, came: 17 }])).toBe(100);
  });

  test("comes from the throw that took the least time", () => {
    const atRoot = [
      { came: 120, sent: 121 },
      { came: 132, sent: 150 },
    ];
    const own = [
      { sent: 10, came: 40 },
      { sent: 30, came: 52 },
    ];
    expect(offsetOf(atRoot, own)).toBe(100);
  });
});

describe.skipIf(nativeIsMissing)("RankTracer", () => {
  test("puts all ranks on one clock: no message comes before it went", async () => {
    const worlds = inProcess(3, { backend: "native", limitBytes: 2 ** 20, threads: 1, isTraced: true });
    const traces = await everyRank(worlds, async (world) => {
      const { device, rank, size } = world;
      // Queues whose traces begin at different times.
      await new Promise((resolve) => setTimeout(resolve, 30 * rank));
      const tracer = await RankTracer.begin(world);
      using x = device.temporary([4], "f32");
      fill(x, 0);
      device.mark("in a ring");
      for (let i = 0; i < 5; i++) {
        const [next, last] = [(rank + 1) % size, (rank + size - 1) % size];
        using y = device.temporary([4], "f32");
        world.exchange([{ to: next, x }], [{ from: last, y }]).wait();
        if (i === 2) await tracer.collect();
      }
      return tracer.end();
    });
    for (const { device } of worlds) await device.dispose();
    for (const { rank, spans } of traces) {
      const waits = spans.filter(({ category }) => category === "wait");
      expect(waits.map(({ name }) => name)).toEqual(
        Array(5).fill(`in a ring waits for rank ${(rank + 2) % 3}`),
      );
      for (const { awaits, end } of waits) {
        const { from, index } = awaits![0]!;
        // The clocks began 30 ms apart; a throw takes far less than one.
        expect(traces[from]!.sends![index]!.at).toBeLessThanOrEqual(end + 0.01);
      }
    }
  });

  test("refuses a queue that keeps no times", async () => {
    const [world] = inProcess(1, { backend: "native", limitBytes: 2 ** 20, threads: 1 });
    await expect(RankTracer.begin(world!)).rejects.toThrow(BackendError);
    await world!.device.dispose();
  });
});
