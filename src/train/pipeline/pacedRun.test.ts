import { describe, expect, test } from "vitest";
import { nativeIsMissing } from "../../../test/support/native.ts";
import {
  accountTimeline,
  everyRank,
  inProcess,
  planDualPipe,
  planZeroBubble,
  type RankSpans,
  simulate,
  withTravel,
} from "../../parallel/index.ts";
import type { PairForm } from "./executor.ts";
import { type PacedRun, pacedWorld, runPaced } from "./pacedRun.ts";

async function measure(ranks: number, run: PacedRun): Promise<readonly RankSpans[]> {
  const link = run.link === undefined ? {} : { link: run.link };
  const options = { backend: "native", limitBytes: 2 ** 26, threads: 1, isTraced: true, ...link } as const;
  const worlds = inProcess(ranks, { ...options, timeoutSeconds: 60 });
  try {
    return await everyRank(worlds, (world) => runPaced(pacedWorld(world, run.plan.ranks), run));
  } finally {
    for (const { device } of worlds) await device.dispose();
  }
}

describe.skipIf(nativeIsMissing)("a pipeline of paced chunks", () => {
  test("computes every action for its time, and waits where the simulator says so", async () => {
    const plan = planZeroBubble({ ranks: 4, microBatches: 4 });
    const costs = { chunks: { forward: 0.02, backward: 0.04, weight: 0.02, overlapped: 0.06 } };
    const spans = await measure(4, { plan, costs, shape: [8, 8] });
    const { makespan, spans: expected } = simulate(plan, costs);
    const account = accountTimeline(withTravel(spans));
    // Sleep is never too short; that a busy machine makes it longer is no failure.
    expect(account.end - account.start).toBeGreaterThanOrEqual(makespan - 0.002);
    for (const { rank, spans: own } of spans) {
      const computed = own.filter(({ category, chunks = [] }) => category === "compute" && chunks.length > 0);
      const seconds = Map.groupBy(computed, ({ name }) => name);
      expect(seconds.size).toBe(plan.actions[rank]!.length);
      const work = expected[rank]!.reduce((sum, { start, end }) => sum + end - start, 0);
      const found = computed.reduce((sum, { start, end }) => sum + end - start, 0);
      expect(found).toBeGreaterThanOrEqual(work);
    }
  });

  test("hides the experts' messages of its pairs when their pieces are interleaved, else none", async () => {
    const run: PacedRun = {
      plan: planDualPipe({ ranks: 2, microBatches: 8 }),
      costs: { chunks: { forward: 0.06, backward: 0.12, weight: 0.06, overlapped: 0.18 } },
      shape: [8, 8],
      link: { latencySeconds: 0, bytesPerSecond: 1e7 },
      experts: { layers: 2, bytes: 100_000 },
    };
    const hidden = async (pairs: PairForm): Promise<number> => {
      const ranks = withTravel(await measure(4, { ...run, pairs }));
      const { ranks: accounts } = accountTimeline(
        ranks.map((rank) => ({
          ...rank,
          spans: rank.spans.filter(
            ({ category, chunks = [] }) => category === "compute" || chunks.length === 2,
          ),
        })),
      );
      const sum = (of: "communication" | "exposedCommunication"): number =>
        accounts.reduce((total, account) => total + account[of], 0);
      expect(sum("communication")).toBeGreaterThan(0.1);
      return 1 - sum("exposedCommunication") / sum("communication");
    };
    expect(await hidden("unit")).toBeLessThan(0.05);
    expect(await hidden("interleaved")).toBeGreaterThan(0.8);
  }, 60_000);
});
