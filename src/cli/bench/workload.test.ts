import { describe, expect, test } from "vitest";
import { makeOracleDevice } from "../../../test/support/gradient.ts";
import { tinyConfig } from "../../../test/support/tinyModel.ts";
import { countParameters, isMoeLayer, trainingFlopsPerToken } from "../../model/index.ts";
import type { TrainConfig } from "../../train/index.ts";
import { gemmSpecs, minkeSpec, torchSpecs } from "./peerSpecs.ts";
import { dense124m, TimedTraining, WORKLOADS, workloadConfig } from "./workload.ts";

describe("dense-124m", () => {
  test("has no experts and no MTP, and a token multiplies with as many parameters as in GPT-2 124M", () => {
    const model = dense124m();
    expect(Array.from({ length: model.numHiddenLayers }, (_, i) => isMoeLayer(model, i))).not.toContain(true);
    const { active, main } = countParameters(model);
    expect(active.withoutEmbedding / 1e6).toBeCloseTo(124, 0);
    // V3 does not tie the head to the embedding.
    expect(main - active.withoutEmbedding).toBe(model.vocabSize * model.hiddenSize);
    expect(trainingFlopsPerToken(model, 64).mtp).toBe(0);
  });

  test("takes 4 rows of 64 tokens, the presets 2,048 tokens", () => {
    for (const name of WORKLOADS) {
      const { batchRows, microBatchRows, rowLength, precision } = workloadConfig(name, "f32");
      expect(batchRows * rowLength).toBe(name === "dense-124m" ? 256 : 2048);
      expect([microBatchRows, precision]).toEqual([batchRows, "f32"]);
    }
  });

  test("a model that cannot be measured is refused with those that can", () => {
    expect(() => workloadConfig("v3-671b", "bf16")).toThrow("micro, nano, mini, dense-124m");
  });
});

describe("even routing", () => {
  test("gives every expert of every layer, MTP's included, as many tokens as any other", async () => {
    const device = makeOracleDevice();
    const change = (config: TrainConfig): TrainConfig => ({
      ...config,
      model: tinyConfig(),
      rowLength: 8,
      batchRows: 2,
      microBatchRows: 2,
    });
    const flags = { preset: "micro", precision: "f32" } as const;
    for (const isEven of [false, true]) {
      const training = new TimedTraining({ device }, flags, { change, isEven });
      const { busiest } = await training.step();
      if (isEven) expect(busiest).toBe(1);
      else expect(busiest).toBeGreaterThan(1);
      training.dispose();
      expect(device.arena.liveBytes).toBe(0);
    }
  });
});

describe("the peers", () => {
  test("are PyTorch in f32 and bf16, eager and compiled, told preset and threads; compilers get more time", () => {
    const specs = torchSpecs("mini", 3, "/scratch");
    expect(specs.map(({ name }) => name)).toEqual([
      "PyTorch bf16 autocast eager",
      "PyTorch f32 eager",
      "PyTorch bf16 autocast compiled",
      "PyTorch f32 compiled",
    ]);
    for (const { name, args, precision, readyTimeoutMs } of specs) {
      expect(args.slice(1, 8)).toEqual([
        "--serve",
        "--preset",
        "mini",
        "--precision",
        precision,
        "--threads",
        "3",
      ]);
      expect(args.includes("--compile")).toBe(name.endsWith("compiled"));
      expect(readyTimeoutMs).toBe((name.endsWith("compiled") ? 20 : 5) * 60_000);
    }
  });

  test("of a product are PyTorch and jax-js, beside which ours is the same program as this one", () => {
    expect(gemmSpecs(2).map(({ name }) => name)).toEqual([
      "PyTorch bf16",
      "PyTorch bf16, weights packed",
      "PyTorch f32",
      "PyTorch f32, weights packed",
      "jax-js f32 (WebAssembly)",
    ]);
    const { command, args } = minkeSpec("gemm", "f32", 2);
    expect(command).toBe(process.execPath);
    expect(args.join(" ")).toMatch(/ bench serve --preset gemm --precision f32 --threads 2$/);
  });
});
