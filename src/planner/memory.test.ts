import { describe, expect, test } from "vitest";
import { presetConfig } from "../model/index.ts";
import { plan1F1B, planDualPipe, planZeroBubble, simulate } from "../parallel/index.ts";
import type { TrainingLayout } from "./layout.ts";
import { chunkActivationBytes, type MemoryInputs, memoryPerRank, peakActivations } from "./memory.ts";
import { pipelineOf } from "./pipelineTimer.ts";
import { publishedLayout, publishedStep } from "./published.ts";
import { splitStages } from "./stages.ts";

const v3 = presetConfig("v3-671b");
const spread = { nodes: 4, remoteNodes: 3.5, devices: 7.5, hops: 6.5 };
const even = { dense: 1, moe: 1, tail: 2.6 };

function inputsOf(change: Partial<TrainingLayout> = {}, microBatches = 120): MemoryInputs {
  const layout = { ...publishedLayout, ...change };
  const isFolded = layout.schedule.startsWith("dualpipe");
  const stages = splitStages(v3, layout.schedule === "dualpipev" ? 2 * layout.pp : layout.pp, even, isFolded);
  return { config: v3, layout, size: publishedStep, stages, spread, plan: pipelineOf(layout, microBatches) };
}

describe("peakActivations", () => {
  test("is the schedule's peak of chunks, where all chunks are equal", () => {
    for (const plan of [
      plan1F1B({ ranks: 8, microBatches: 20 }),
      planZeroBubble({ ranks: 8, microBatches: 20 }),
      planDualPipe({ ranks: 8, microBatches: 20 }),
    ]) {
      const { peakChunks } = simulate(plan, {
        chunks: { forward: 1, backward: 2, weight: 1, overlapped: 3 },
      });
      expect(plan.actions.map((actions) => peakActivations(actions, [1, 1]))).toEqual(peakChunks);
    }
  });

  test("1F1B keeps fewer chunks on later ranks, DualPipe PP + 1 on all", () => {
    const ofPlan = ({ actions }: ReturnType<typeof plan1F1B>): number[] =>
      actions.map((list) => peakActivations(list, [1, 1]));
    expect(ofPlan(plan1F1B({ ranks: 4, microBatches: 8 }))).toEqual([4, 3, 2, 1]);
    expect(ofPlan(planDualPipe({ ranks: 4, microBatches: 8 }))).toEqual([5, 5, 5, 5]);
  });

  test("weighs each chunk with its own stage", () => {
    const [first] = planDualPipe({ ranks: 4, microBatches: 8 }).actions;
    const [down, up] = [peakActivations(first!, [1, 0]), peakActivations(first!, [0, 1])];
    expect(down + up).toBeGreaterThanOrEqual(5);
    expect(peakActivations(first!, [2, 2])).toBe(10);
  });
});

describe("memoryPerRank", () => {
  const memory = memoryPerRank(inputsOf());

  test("V3 fits 80 GB devices without tensor parallelism in the published layout, and is no small thing", () => {
    for (const { total } of memory) {
      expect(total).toBeLessThan(84.9e9);
      expect(total).toBeGreaterThan(50e9);
    }
  });

  test("is itemised: the parts add up", () => {
    for (const { rank: _, total, ...parts } of memory) {
      expect(Object.values(parts).reduce((sum, part) => sum + part, 0)).toBe(total);
      for (const part of Object.values(parts)) expect(part).toBeGreaterThan(0);
    }
  });

  test("weights are a byte each with a scale for every block, gradients four", () => {
    // Rank 7 has two stages of four MoE layers: eight times 409,157,888 parameters.
    const parameters = 8 * 409_157_888;
    expect(memory[7]!.gradients).toBe(4 * parameters);
    const other = 8 * (2 * 7168 + 1536 + 512 + 256 * 7168 + 256);
    expect(memory[7]!.weights).toBeCloseTo((parameters - other) * (1 + 4 / 16384) + 2 * other, 0);
  });

  test("ZeRO-1: dense parameters over both directions' 256 replicas, experts over the 4 that hold the same", () => {
    const experts = 8 * 4 * 44_040_192;
    const dense = 8 * 409_157_888 - experts;
    expect(memory[7]!.masters).toBeCloseTo(4 * (dense / 256 + experts / 4), 0);
    expect(memory[7]!.moments).toBe(memory[7]!.masters);
  });

  test("the first rank holds one embedding for both of its stages", () => {
    const [first] = memory;
    const inputs = inputsOf();
    const layers = inputs.stages[0]!.denseLayers + inputs.stages[0]!.moeLayers + inputs.stages[15]!.moeLayers;
    // Embedding, head and MTP's projection; a second embedding would be 0.93 billion more.
    const shared = 2 * 926_679_040 + 2 * 7168 * 7168;
    expect(first!.gradients / 4).toBeLessThan(layers * 700e6 + shared + 0.2e9);
    expect(first!.gradients / 4).toBeGreaterThan(shared);
    const single = memoryPerRank(inputsOf({ schedule: "1f1b" }));
    expect(single[15]!.gradients / 4).toBeGreaterThan(2 * 926_679_040);
  });

  test("activations are PP + 1 chunks under DualPipe", () => {
    const inputs = inputsOf();
    const chunk = chunkActivationBytes(inputs, inputs.stages[7]!);
    expect(memory[7]!.activations).toBeCloseTo(17 * chunk, 0);
  });

  test("a token keeps 157 kB of a MoE layer, part by part", () => {
    const inputs = inputsOf();
    const stage = { denseLayers: 0, moeLayers: 1, hasEmbedding: false, hasHead: false, mtpModules: 0 };
    const scaled = 1 + 4 / 128;
    const attention = 2 * 7168 + 2 * (1536 + 512 + 64) + 16_384 * (1.5 + 4 / 128) + 4 * 128;
    const experts = 2 * 7168 + 8 * 7168 * scaled + 9 * 2 * 2048 * scaled + 4 * 256;
    expect(chunkActivationBytes(inputs, stage)).toBeCloseTo(4096 * (attention + experts), 0);
    expect((attention + experts) / 1000).toBeCloseTo(157, 0);
    const dense = { ...stage, denseLayers: 1, moeLayers: 0 };
    expect(chunkActivationBytes(inputs, dense)).toBeCloseTo(
      4096 * (attention + 2 * 7168 + 2 * 18_432 * scaled),
      0,
    );
  });

  test("FP8 keeps 0.6 of the activations of BF16", () => {
    const inputs = inputsOf();
    const fp8 = chunkActivationBytes(inputs, inputs.stages[7]!);
    const bf16 = chunkActivationBytes(
      { ...inputs, size: { ...publishedStep, precision: "bf16" } },
      inputs.stages[7]!,
    );
    expect(fp8 / bf16).toBeGreaterThan(0.5);
    expect(fp8 / bf16).toBeLessThan(0.7);
  });

  test("more devices in an expert group hold fewer experts each", () => {
    const [few, many] = [8, 128].map((ep) => memoryPerRank(inputsOf({ ep }))[7]!);
    expect(few!.gradients).toBeGreaterThan(3 * many!.gradients);
  });

  test("without expert or pipeline parallelism there is nothing to buffer", () => {
    const [only] = memoryPerRank(inputsOf({ pp: 1, dp: 2048, ep: 1, schedule: "1f1b" }, 8));
    expect(only!.buffers).toBe(0);
  });
});
