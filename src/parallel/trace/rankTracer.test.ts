import { expect, test } from "vitest";
import { nativeIsMissing } from "../../../test/support/native.ts";
import { fill } from "../../tensor/index.ts";
import { inProcess } from "../communicator/inProcess.ts";
import { plan1F1B } from "../schedule/oneForwardOneBackward.ts";
import { actionMark } from "./marks.ts";
import { RankTracer } from "./rankTracer.ts";

test.skipIf(nativeIsMissing)(
  "a rank keeps what it collected, not what it discarded, and its pipeline",
  async () => {
    const [world] = inProcess(1, { backend: "native", limitBytes: 2 ** 20, threads: 1, isTraced: true });
    const { device } = world!;
    const plan = plan1F1B({ ranks: 1, microBatches: 2 });
    const link = { latencySeconds: 0.5, bytesPerSecond: 100 };
    const tracer = await RankTracer.begin(world!, { pipeline: { plan, rank: 0 }, link });
    using x = device.temporary([4], "f32");
    const work = (mark: string): void => {
      device.mark(mark);
      fill(x, 1);
    };
    work("warm-up");
    await tracer.discard();
    work(actionMark(1));
    await tracer.collect();
    work("update");
    const { spans, ...rest } = await tracer.end();
    expect(spans.map(({ name, category }) => [name, category])).toEqual([
      ["B0", "compute"],
      ["update", "compute"],
    ]);
    expect(spans[0]!.end).toBeLessThanOrEqual(spans[1]!.start);
    expect(rest).toEqual({
      rank: 0,
      sends: [],
      link,
      pipeline: { schedule: "1f1b", ranks: 1, microBatches: 2 },
    });
    await device.dispose();
  },
);
