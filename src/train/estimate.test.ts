import { describe, expect, test } from "vitest";
import { makeSession, midway, randomRows, tinyTrainConfig } from "../../test/support/tinyTraining.ts";
import type { ModelConfig } from "../model/index.ts";
import { countParameters } from "../model/index.ts";
import type { Layout } from "../parallel/index.ts";
import { QueueDevice, ReferenceBackend } from "../tensor/index.ts";
import type { TrainConfig } from "./config.ts";
import { defaultTrainConfig } from "./configSchema.ts";
import { besideBf16, estimateStep } from "./estimate.ts";

const { optimizer, data, fp8 } = tinyTrainConfig();

const cases: readonly [string, Partial<TrainConfig>, Partial<ModelConfig>][] = [
  ["f32, two micro-batches", {}, {}],
  ["bf16", { precision: "bf16" }, {}],
  ["FP8", { precision: "fp8" }, {}],
  ["FP8 with recomputation", { precision: "fp8", recompute: "selective" }, {}],
  ["FP8, one scale a tensor", { precision: "fp8", fp8: { ...fp8, scaling: "tensor" } }, {}],
  ["one micro-batch", { microBatchRows: 4 }, {}],
  ["a tree of four blocks", { microBatchRows: 1, gradientShards: 4 }, {}],
  ["no MTP", {}, { numNextnPredictLayers: 0 }],
  ["three MTP modules", {}, { numNextnPredictLayers: 3 }],
  ["averages and bf16 moments", { optimizer: { ...optimizer, emaDecay: 0.99, moments: "bf16" } }, {}],
  ["masked documents", { data: { ...data, maskDocuments: true } }, {}],
  ["with recomputation", { precision: "bf16", recompute: "selective" }, {}],
  ["no query latent, two shared experts", {}, { qLoraRank: null, nSharedExperts: 2 }],
];

describe("estimateStep", () => {
  test.each(cases)("tells the high-water mark of real steps exactly: %s", async (_, changes, model) => {
    const config = tinyTrainConfig(changes, model);
    const { nativeBytes } = await estimateStep(config);
    const session = makeSession(config);
    for (let i = 0; i < 3; i++) {
      await session.runner.compute(randomRows(config.batchRows, config, i), midway(config));
      if (i !== 1) session.runner.commit(midway(config));
    }
    expect(session.device.arena.highWaterBytes).toBe(nativeBytes);
  });

  test("is enough and no more: a device with that limit trains, one with less is refused", async () => {
    const config = tinyTrainConfig();
    const { nativeBytes } = await estimateStep(config);
    const train = async (limit: number): Promise<void> => {
      const session = makeSession(config, new QueueDevice(new ReferenceBackend(), limit));
      await session.runner.compute(randomRows(4, config, 1), midway(config));
      session.runner.commit(midway(config));
    };
    await train(nativeBytes);
    await expect(train(nativeBytes - 64)).rejects.toThrow(/no room for \d+ bytes/);
  });

  test("says what the bytes are for", async () => {
    const config = tinyTrainConfig({ optimizer: { ...optimizer, emaDecay: 0.99 } });
    const { parts, nativeBytes } = await estimateStep(config);
    const { stored, embedding, head } = countParameters(config.model);
    const biases = 2 * config.model.nRoutedExperts;
    // The file's copies of embedding and head are no weights of their own, but have gradients of their own.
    const trained = stored - embedding - head - biases;
    expect(parts.moments).toBe(2 * 4 * trained);
    expect(parts.averages).toBe(4 * trained);
    expect(parts.gradients).toBe(4 * (trained + embedding + head));
    expect(parts.weights).toBeGreaterThan(3 * 4 * 0.9 * trained);
    const sum = Object.values(parts).reduce((total, bytes) => total + bytes, 0);
    expect(sum).toBeLessThanOrEqual(nativeBytes);
    expect(sum).toBeGreaterThan(0.8 * nativeBytes);
  });

  test("needs less for activations in smaller micro-batches, and no less of anything else", async () => {
    const [large, small] = [
      await estimateStep(tinyTrainConfig({ microBatchRows: 4 })),
      await estimateStep(tinyTrainConfig({ microBatchRows: 1 })),
    ];
    expect(small.parts.activations).toBeLessThan(0.6 * large.parts.activations);
    expect({ ...small.parts, activations: 0 }).toEqual({ ...large.parts, activations: 0 });
  });

  test.each([
    ["micro", 0.59, 0.65],
    ["nano", 0.55, 0.65],
    ["mini", 0.53, 0.67],
  ])("%s in FP8 multiplies weights of %d of the bytes and keeps activations of %d", async (preset, w, a) => {
    const config = defaultTrainConfig(preset, 100, undefined, "fp8");
    const [weights, activations] = await besideBf16(config, await estimateStep(config));
    expect(weights!.bytes / weights!.bf16Bytes).toBeLessThan(w);
    expect(activations!.bytes / activations!.bf16Bytes).toBeLessThan(a);
    expect(await besideBf16({ ...config, precision: "bf16" }, await estimateStep(config))).toEqual([]);
  });

  test("what bf16 would take is counted for the same rank", async () => {
    const config = {
      ...tinyTrainConfig({ batchRows: 8, microBatchRows: 1, gradientShards: 4 }),
      precision: "fp8",
    } as const;
    const beside = async (layout: Layout): Promise<readonly { name: string; bf16Bytes: number }[]> => {
      const seat = { layout, rank: 0, ranksPerNode: null };
      return besideBf16(config, await estimateStep(config, seat), seat);
    };
    const shared = { dp: 2, ep: 2, pp: 1, schedule: "dualpipe", zero1: false } as const;
    const whole = await beside({ ...shared, ep: 1 });
    const share = await beside(shared);
    expect(share[0]!.bf16Bytes).toBeLessThan(whole[0]!.bf16Bytes);
    const stage = await beside({ dp: 1, ep: 1, pp: 2, schedule: "1f1b", zero1: false });
    expect(stage.map(({ name }) => name)).toEqual(["weights to multiply"]);
  });

  test("counts for a step of a million rows only what their losses need more than those of two", async () => {
    const [two, million] = [
      await estimateStep(tinyTrainConfig({ batchRows: 2, microBatchRows: 1 })),
      await estimateStep(tinyTrainConfig({ batchRows: 1_000_000, microBatchRows: 1 })),
    ];
    // Main loss, MTP's loss and hits, and the balance loss of two routers, for each micro-batch.
    expect((million.nativeBytes - two.nativeBytes) / 1e6).toBeCloseTo(20, 2);
    expect({ ...million, nativeBytes: 0 }).toEqual({ ...two, nativeBytes: 0 });
  });

  test("plans a run that no machine here could hold", async () => {
    const model = { numHiddenLayers: 6, hiddenSize: 4096, vocabSize: 100_000, intermediateSize: 8192 };
    const { nativeBytes } = await estimateStep(tinyTrainConfig({}, model));
    expect(nativeBytes).toBeGreaterThan(10e9);
  });
});
