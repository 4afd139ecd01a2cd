import { describe, expect, test } from "vitest";
import { presetConfig } from "../model/index.ts";
import { rooflineChunks } from "./chunkCosts.ts";
import { type Cluster, namedCluster, shareComputing } from "./cluster.ts";
import type { TrainingLayout } from "./layout.ts";
import { publishedLayout, publishedStep } from "./published.ts";
import { workSeconds } from "./roofline.ts";
import { spreads } from "./routing.ts";
import { addWork, type PhaseWork } from "./work.ts";

const v3 = presetConfig("v3-671b");
const cluster = namedCluster("h800x2048");
const spreadOf = spreads(v3, cluster);
const share = shareComputing(cluster.device);

function chunksOf(
  change: Partial<TrainingLayout> = {},
  on: Cluster = cluster,
): ReturnType<typeof rooflineChunks> {
  const layout = { ...publishedLayout, ...change };
  return rooflineChunks(v3, on, layout, publishedStep, spreadOf(layout.ep));
}

function whole({ forward, backwardInput, backwardWeight }: PhaseWork): ReturnType<typeof addWork> {
  return addWork(forward, backwardInput, backwardWeight);
}

describe("rooflineChunks", () => {
  const { stages, chunks, works, traffic, handover } = chunksOf();
  const usual = stages.findIndex(({ moeLayers, denseLayers }) => moeLayers === 4 && denseLayers === 0);
  const chunk = chunks[usual]!;
  const { dispatch, combine } = traffic;

  test("a chunk alone has all multiprocessors and its transfers in the open", () => {
    const compute = workSeconds(addWork(works.attention.forward, works.moe.forward), cluster);
    expect(chunk.forward).toBeCloseTo(4 * (compute + dispatch.seconds + combine.seconds), 9);
    const weight = workSeconds(addWork(works.attention.backwardWeight, works.moe.backwardWeight), cluster);
    expect(chunk.weight).toBeCloseTo(4 * weight, 9);
    const input = workSeconds(addWork(works.attention.backwardInput, works.moe.backwardInput), cluster);
    expect(chunk.backward).toBeCloseTo(4 * (input + weight + dispatch.seconds + combine.seconds), 9);
  });

  test("a pair computes on what communication leaves, and hides its transfers", () => {
    const both = addWork(whole(works.attention), whole(works.moe));
    expect(chunk.overlapped).toBeCloseTo(4 * workSeconds(both, cluster, share), 9);
    expect(chunk.overlapped).toBeLessThan(chunk.forward + chunk.backward);
  });

  test("dispatches hide under the experts, combines under attention, and no other way round", () => {
    // Dispatches still fit under the experts, combines no longer under attention.
    const mlp = workSeconds(whole(works.moe), cluster, share);
    const slow = { ...cluster, interNodeBandwidth: cluster.interNodeBandwidth / 3 };
    const found = chunksOf({}, slow);
    const attention = workSeconds(whole(works.attention), cluster, share);
    const expected =
      Math.max(0, 2 * found.traffic.dispatch.seconds - mlp) +
      Math.max(0, 2 * found.traffic.combine.seconds - attention);
    expect(expected).toBeGreaterThan(0);
    expect(found.exposed[usual]).toBeCloseTo(4 * expected, 9);
    expect(found.chunks[usual]!.overlapped).toBeCloseTo(chunk.overlapped + 4 * expected, 9);
    // The two periods do not help each other out.
    const together = 2 * (found.traffic.dispatch.seconds + found.traffic.combine.seconds) - mlp - attention;
    expect(expected).toBeGreaterThan(together);
  });

  test("a pair never takes longer than its parts one after the other", () => {
    // Inside a node there is little to hide, yet 20 multiprocessors to give away.
    const near = chunksOf({ ep: 2 }).chunks;
    for (const { forward, backward, overlapped } of near)
      expect(overlapped).toBeCloseTo(forward + backward, 12);
    for (const { forward, backward, overlapped } of chunks)
      expect(overlapped).toBeLessThanOrEqual(forward + backward);
  });

  test("without expert parallelism nothing is sent and every multiprocessor computes", () => {
    const alone = chunksOf({ ep: 1 });
    const both = addWork(whole(alone.works.attention), whole(alone.works.moe));
    expect(alone.traffic.dispatch.seconds).toBe(0);
    const { denseLayers, moeLayers } = alone.stages[usual]!;
    expect(denseLayers).toBe(0);
    expect(alone.chunks[usual]!.overlapped).toBeCloseTo(moeLayers * workSeconds(both, cluster), 9);
  });

  test("the last stage has the head twice, once for MTP, and MTP's projection and layer", () => {
    const last = stages.length - 1;
    const { denseLayers, moeLayers, mtpModules } = stages[last]!;
    const parts = [
      ...Array.from({ length: denseLayers + moeLayers }, () => works.attention.backwardWeight),
      ...Array.from({ length: moeLayers }, () => works.moe.backwardWeight),
      works.head.backwardWeight,
      works.head.backwardWeight,
      works.mtpProjection.backwardWeight,
    ];
    expect({ denseLayers, mtpModules }).toEqual({ denseLayers: 0, mtpModules: 1 });
    expect(chunks[last]!.weight).toBeCloseTo(workSeconds(addWork(...parts), cluster), 9);
  });

  test("a handover is a micro-batch's hidden states, and none where there is one stage", () => {
    expect(handover).toBeCloseTo((4096 * 14_336) / 50e9 + 3.7e-6, 9);
    expect(chunksOf({ pp: 1, dp: 2048, schedule: "1f1b" }).handover).toBe(0);
  });

  test("two rows a micro-batch cost less than twice as much: weights are read once", () => {
    const two = chunksOf({ microBatchRows: 2, schedule: "1f1b" }).chunks.at(1)!;
    const one = chunksOf({ schedule: "1f1b" }).chunks.at(1)!;
    expect(two.forward).toBeGreaterThan(1.8 * one.forward);
    expect(two.forward).toBeLessThan(2 * one.forward);
  });
});
