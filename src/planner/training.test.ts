/** The planner against the published run: figures of arXiv 2505.09343 and of the DeepSeek-V3 report, table 1. */
import { describe, expect, test } from "vitest";
import { ConfigError } from "../base/index.ts";
import { presetConfig } from "../model/index.ts";
import { namedCluster } from "./cluster.ts";
import { parseCluster } from "./clusterFile.ts";
import { schedules } from "./layout.ts";
import { isPublishedRun, publishedLayout, publishedStep, publishedV3 } from "./published.ts";
import { throughput } from "./throughput.ts";
import { planTraining, type StepTime, type TrainingInputs } from "./training.ts";

const v3 = presetConfig("v3-671b");
const cluster = namedCluster("h800x2048");
const inputs: TrainingInputs = {
  config: v3,
  cluster,
  layout: publishedLayout,
  size: publishedStep,
  tokens: publishedV3.tokens,
};
const plan = planTraining(inputs);
const [calibrated, roofline] = plan.times as [StepTime, StepTime];

function within(value: number, published: number, share: number): void {
  expect(Math.abs(value / published - 1)).toBeLessThan(share);
}

describe("the published run", () => {
  test("calibrated with chunk times only: step, tokens a day and device hours within 10 %", () => {
    expect(calibrated.costs).toBe("calibrated");
    within(calibrated.stepSeconds, 19.926, 0.1);
    within(calibrated.tokensPerDay, 272.8e9, 0.1);
    within(calibrated.deviceHours, 2.664e6, 0.1);
    within(calibrated.price, 5.328e6, 0.1);
  });

  test("uncalibrated, from peaks, bytes and bandwidths: the same within 25 %", () => {
    expect(roofline.costs).toBe("roofline");
    within(roofline.stepSeconds, 19.926, 0.25);
    within(roofline.tokensPerDay, 272.8e9, 0.25);
    within(roofline.deviceHours, 2.664e6, 0.25);
    within(roofline.price, 5.328e6, 0.25);
  });

  test("the measured chunk times do not touch the uncalibrated figures", () => {
    const without = planTraining({ ...inputs, cluster: { ...cluster, chunkTimes: null } });
    expect(without.times).toEqual([roofline]);
  });

  test("the uncalibrated chunk and optimizer are within 40 % of the measured ones, part by part", () => {
    const usual = plan.roofline.chunks[7]!;
    expect(plan.roofline.stages[7]).toMatchObject({ moeLayers: 4, denseLayers: 0 });
    within(usual.forward, 0.058, 0.1);
    within(usual.backward, 0.127, 0.25);
    within(usual.weight, 0.042, 0.4);
    within(usual.overlapped, 0.139, 0.2);
    within(roofline.optimizerSeconds, 0.29, 0.4);
  });

  test("a pair is within 15 % of the 129 ms that the published profile shows", () => {
    within(plan.roofline.chunks[7]!.overlapped, 0.129, 0.15);
  });

  test("computation is long enough to hide every transfer of a pair", () => {
    expect(plan.roofline.exposed).toEqual(new Array(16).fill(0));
  });

  test("a bubble of the ideal schedule is below the published 2.06 s, and the formula says 0.98", () => {
    const { overlapped, backward, weight } = calibrated.chunk;
    expect(7 * (overlapped + backward - 3 * weight)).toBeCloseTo(0.98, 2);
    for (const bubble of calibrated.bubbleSeconds) {
      expect(bubble).toBeLessThan(publishedV3.bubbleSeconds);
      expect(bubble).toBeGreaterThan(0.5);
    }
  });

  test("holds 17 chunks at most, 3.27 billion parameters on most devices, and fits", () => {
    expect(plan.peakChunks).toBe(17);
    expect(plan.parametersPerRank[7]).toBe(8 * 409_157_888);
    expect(plan.warnings).toEqual([]);
  });

  test("is recognised as the published run, and nothing else is", () => {
    expect(isPublishedRun("v3-671b", cluster, publishedLayout, publishedStep, v3)).toBe(true);
    expect(isPublishedRun("mine.json", cluster, publishedLayout, publishedStep, v3)).toBe(false);
    expect(isPublishedRun("v3-671b", cluster, { ...publishedLayout, ep: 32 }, publishedStep, v3)).toBe(false);
    expect(isPublishedRun("v3-671b", namedCluster("h800x1024"), publishedLayout, publishedStep, v3)).toBe(
      false,
    );
    const short = { ...publishedStep, rowLength: 2048 };
    expect(isPublishedRun("v3-671b", cluster, publishedLayout, short, v3)).toBe(false);
  });
});

describe("throughput", () => {
  test("at the published step it is the published 272.8 billion tokens a day, 385 and 432 TFLOPS, 38.94 and 43.73 %", () => {
    const found = throughput(inputs, publishedV3.stepSeconds);
    expect(found.tokensPerDay / 1e9).toBeCloseTo(272.8, 1);
    within(found.causalFlops, 385e12, 0.005);
    within(found.nonCausalFlops, 432e12, 0.005);
    within(found.causalMfu, 0.3894, 0.005);
    within(found.nonCausalMfu, 0.4373, 0.005);
    within(found.deviceHours, 2.664e6, 0.005);
    within(found.price, 5.328e6, 0.005);
  });
});

describe("planTraining", () => {
  test("chunks are scaled by FLOPs where a calibrated cluster runs another layout", () => {
    const half = planTraining({ ...inputs, layout: { ...publishedLayout, pp: 8, dp: 256, ep: 64 } });
    expect(half.times[0]!.chunk.forward).toBeCloseTo(2 * 0.058, 9);
    const folded = planTraining({ ...inputs, layout: { ...publishedLayout, schedule: "dualpipev" } });
    expect(folded.times[0]!.chunk.overlapped).toBeCloseTo(0.139 / 2, 9);
  });

  test("the optimizer's measured time is of the measured model and stages: others have the roofline's", () => {
    expect(calibrated.optimizerSeconds).toBe(0.29);
    const half = planTraining({ ...inputs, layout: { ...publishedLayout, pp: 8, dp: 256, ep: 64 } });
    const shorter = { ...v3, numHiddenLayers: 57 };
    const other = planTraining({ ...inputs, config: shorter, layout: { ...publishedLayout } });
    for (const { times } of [half, other]) {
      expect(times.map(({ costs }) => costs)).toEqual(["calibrated", "roofline"]);
      expect(times[0]!.optimizerSeconds).toBe(times[1]!.optimizerSeconds);
    }
  });

  test("BF16 has no measured chunks, needs more memory and more time", () => {
    const bf16 = planTraining({ ...inputs, size: { ...publishedStep, precision: "bf16" } });
    expect(bf16.times.map(({ costs }) => costs)).toEqual(["roofline"]);
    expect(bf16.times[0]!.stepSeconds).toBeGreaterThan(1.3 * roofline.stepSeconds);
    expect(bf16.warnings[0]).toMatch(/does not fit/);
    expect(bf16.warnings.at(-1)).toMatch(/not calibrated: .* FP8, this plan is in bf16/);
  });

  test("1F1B takes longer than DualPipe: its transfers are in the open and its bubble is larger", () => {
    const plain = planTraining({ ...inputs, layout: { ...publishedLayout, schedule: "1f1b" } });
    for (const [index, time] of plain.times.entries()) {
      expect(time.stepSeconds).toBeGreaterThan(1.1 * plan.times[index]!.stepSeconds);
    }
  });

  test("too few devices for the experts are told with the rank and what it would need", () => {
    const layout = { ...publishedLayout, ep: 4 };
    expect(planTraining({ ...inputs, layout }).warnings[0]).toMatch(
      /^does not fit: rank \d+ needs \d+\.\d GiB of 79\.1 GiB; 16 of 16 pipeline ranks are too large$/,
    );
  });

  test("a slower network exposes what computation cannot hide, and more", () => {
    const slow = { ...cluster, interNodeBandwidth: 5e9, chunkTimes: null };
    const found = planTraining({ ...inputs, cluster: slow });
    expect(Math.min(...found.roofline.exposed)).toBeGreaterThan(0.05);
    expect(found.times[0]!.stepSeconds).toBeGreaterThan(1.5 * roofline.stepSeconds);
  });

  test("plans a small model on two laptops", () => {
    const laptops = parseCluster(
      {
        name: "two laptops",
        nodes: 2,
        devicesPerNode: 1,
        device: { memoryGiB: 16, bf16Tflops: 0.5, memoryGBps: 60 },
        intraNodeGBps: 60,
        interNodeGBps: 0.1,
      },
      "laptops.json",
    );
    const found = planTraining({
      config: presetConfig("nano"),
      cluster: laptops,
      layout: { pp: 2, dp: 1, ep: 1, schedule: "1f1b", microBatchRows: 1 },
      size: { batchRows: 8, rowLength: 256, precision: "bf16" },
      tokens: 1e6,
    });
    expect(found.times[0]!.stepSeconds).toBeGreaterThan(0);
    expect(Number.isFinite(found.times[0]!.deviceHours)).toBe(true);
    expect(found.times[0]!.price).toBe(0);
    expect(found.warnings).toEqual([]);
  });

  test.each(schedules)(
    "%s: a long step of which a part is simulated is within 0.5 % of the whole simulation",
    (schedule) => {
      const long: TrainingInputs = {
        ...inputs,
        cluster: namedCluster("h800x64"),
        layout: { pp: 8, dp: 8, ep: 8, schedule, microBatchRows: 1 },
        size: { ...publishedStep, batchRows: 8 * 301 + (schedule === "dualpipe" ? 8 : 0) },
      };
      const [whole, part] = [planTraining(long), planTraining({ ...long, simulatedPerRank: 8 })];
      for (const [index, time] of part.times.entries()) {
        within(time.stepSeconds, whole.times[index]!.stepSeconds, 0.005);
      }
      expect(part.memory).toEqual(whole.memory);
    },
  );

  test("a small model measured on one's own cluster keeps its times in the layout that was measured", () => {
    const chunkTimes = {
      ...{ model: "nano", pp: 2, microBatchTokens: 256, rowLength: 256 },
      ...{ forward: 0.005, backward: 0.011, weight: 0.004, overlapped: 0.016, optimizer: 0.002 },
    };
    const found = planTraining({
      config: presetConfig("nano"),
      cluster: { ...namedCluster("h800x2"), chunkTimes },
      layout: { pp: 2, dp: 1, ep: 1, schedule: "1f1b", microBatchRows: 1 },
      size: { batchRows: 8, rowLength: 256, precision: "fp8" },
      tokens: 1e6,
    });
    expect(found.times[0]!.chunk.forward).toBeCloseTo(0.005, 12);
    // Two stages, eight micro-batches: seven pairs after the first, and the optimizer.
    expect(found.times[0]!.stepSeconds).toBeCloseTo(9 * 0.016 + 0.002, 9);
  });

  test("throws the rule that a layout breaks", () => {
    expect(() => planTraining({ ...inputs, layout: { ...publishedLayout, ep: 48 } })).toThrow(ConfigError);
  });
});
