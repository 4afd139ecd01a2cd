import { describe, expect, test } from "vitest";
import { readGoldens } from "../../test/support/goldenModel.ts";
import { makeOracleDevice } from "../../test/support/gradient.ts";
import { makeTinyModel, tinyConfig } from "../../test/support/tinyModel.ts";
import {
  countParameters,
  type ModelConfig,
  ParameterFactory,
  precisions,
  presetConfig,
  Transformer,
} from "../model/index.ts";
import { PlanBackend, QueueDevice, sizeOf } from "../tensor/index.ts";
import { readModelConfig } from "./model.ts";
import { type DiskTensor, diskTensors } from "./names.ts";

/** A model on paper: no memory is taken, so 671 billion parameters fit. */
function planned(config: ModelConfig): readonly DiskTensor[] {
  const device = new QueueDevice(new PlanBackend(), Number.MAX_SAFE_INTEGER);
  const factory = new ParameterFactory(device, config, { precision: precisions.bf16, isTrained: false });
  new Transformer(config, factory);
  return diskTensors(factory);
}

const elements = (tensors: readonly DiskTensor[]): number =>
  tensors.reduce((sum, { shape }) => sum + sizeOf(shape), 0);

describe("DeepSeek-V3 (671B)", () => {
  const tensors = planned(presetConfig("v3-671b"));
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const scaled = tensors.filter(({ kind }) => kind === "linear");

  test("stores in FP8 every matrix of a layer but the router, MTP's joint and its copies", () => {
    const wanted = tensors.filter(
      ({ name, shape }) =>
        name.startsWith("model.layers.") &&
        shape.length === 2 &&
        !/\.(mlp\.gate|eh_proj|embed_tokens|shared_head\.head)\.weight$/.test(name),
    );
    expect(scaled).toEqual(wanted);
  });

  test("has the 91,991 tensors of the published index: ours, and a scale beside every FP8 matrix", () => {
    expect(byName.size).toBe(tensors.length);
    expect(tensors.length + scaled.length).toBe(91_991);
  });

  test("has the published number of elements, and of scales among them", () => {
    const scales = scaled.reduce(
      (sum, { shape: [N, K] }) => sum + Math.ceil(N! / 128) * Math.ceil(K! / 128),
      0,
    );
    expect(scales).toBe(41_540_496);
    expect(elements(tensors) + scales).toBe(684_531_386_000);
  });

  test("has 671,026,419,200 parameters without MTP, and 11,610,068,224 of MTP's own", () => {
    const isMtp = ({ name }: DiskTensor): boolean => name.startsWith("model.layers.61.");
    // The published count leaves the router biases out: they steer and are not trained.
    const trained = tensors.filter(({ name }) => !name.endsWith("e_score_correction_bias"));
    const biases = elements(tensors) - elements(trained);
    expect(biases).toBe(59 * 256);
    const main = elements(tensors.filter((tensor) => !isMtp(tensor)));
    const mtp = elements(tensors.filter((tensor) => isMtp(tensor) && !tensor.isCopy));
    expect([main, mtp]).toEqual([671_026_419_200, 11_610_068_224]);
  });

  test.each([
    ["model.embed_tokens.weight", [129280, 7168]],
    ["model.layers.0.mlp.gate_proj.weight", [18432, 7168]],
    ["model.layers.2.mlp.down_proj.weight", [7168, 18432]],
    ["model.layers.3.mlp.gate.weight", [256, 7168]],
    ["model.layers.3.mlp.gate.e_score_correction_bias", [256]],
    ["model.layers.3.mlp.experts.255.up_proj.weight", [2048, 7168]],
    ["model.layers.60.mlp.experts.0.down_proj.weight", [7168, 2048]],
    ["model.layers.60.mlp.shared_experts.gate_proj.weight", [2048, 7168]],
    ["model.layers.60.input_layernorm.weight", [7168]],
    ["model.layers.60.post_attention_layernorm.weight", [7168]],
    ["model.layers.0.self_attn.q_a_proj.weight", [1536, 7168]],
    ["model.layers.0.self_attn.q_a_layernorm.weight", [1536]],
    ["model.layers.0.self_attn.q_b_proj.weight", [24576, 1536]],
    ["model.layers.0.self_attn.kv_a_proj_with_mqa.weight", [576, 7168]],
    ["model.layers.0.self_attn.kv_a_layernorm.weight", [512]],
    ["model.layers.0.self_attn.kv_b_proj.weight", [32768, 512]],
    ["model.layers.0.self_attn.o_proj.weight", [7168, 16384]],
    ["model.layers.61.embed_tokens.weight", [129280, 7168]],
    ["model.layers.61.enorm.weight", [7168]],
    ["model.layers.61.hnorm.weight", [7168]],
    ["model.layers.61.eh_proj.weight", [7168, 14336]],
    ["model.layers.61.shared_head.norm.weight", [7168]],
    ["model.layers.61.shared_head.head.weight", [129280, 7168]],
    ["model.norm.weight", [7168]],
    ["lm_head.weight", [129280, 7168]],
  ])("stores %s as %j", (name, shape) => {
    expect(byName.get(name)?.shape).toEqual(shape);
  });

  test("has experts from layer 3 on, and dense layers before", () => {
    expect(byName.has("model.layers.2.mlp.experts.0.up_proj.weight")).toBe(false);
    expect(byName.has("model.layers.3.mlp.gate_proj.weight")).toBe(false);
    expect(byName.has("model.layers.61.mlp.experts.0.up_proj.weight")).toBe(true);
  });
});

describe("diskTensors", () => {
  test.each(["unit", "micro", "nano", "mini", "moonlight-16b-a3b", "v3-671b"])(
    "of %s hold as many numbers as the equations count",
    (preset) => {
      const config = presetConfig(preset);
      expect(elements(planned(config))).toBe(countParameters(config).stored);
    },
  );

  test.each([
    ["no MTP module", { numNextnPredictLayers: 0 }],
    ["three MTP modules", { numNextnPredictLayers: 3 }],
    ["no query latent", { qLoraRank: null }],
    ["two shared experts", { nSharedExperts: 2 }],
    ["dense layers only", { firstKDenseReplace: 2 }],
    ["experts in every layer", { firstKDenseReplace: 0 }],
  ])("of a model with %s hold as many numbers as the equations count", (_, changes) => {
    const config = tinyConfig(changes);
    expect(elements(planned(config))).toBe(countParameters(config).stored);
  });

  test.each(["a00-base", "a01-no-q-lora", "a10-two-shared", "a14-dense", "a20-mtp-depth-2"])(
    "are those that transformers wrote for %s, by name and shape",
    async (variant) => {
      const theirs = new Map(
        [...readGoldens(variant, "model")!].map(([name, { shape }]) => [name, [...shape]]),
      );
      const ours = planned(await readModelConfig(`test/golden/${variant}`));
      expect(new Map(ours.map(({ name, shape }) => [name, [...shape]]))).toEqual(theirs);
    },
  );

  test("cover every element of every parameter and buffer exactly once", () => {
    const { factory } = makeTinyModel(makeOracleDevice(), tinyConfig(), { seed: null });
    const sizes = new Map<string, number>([
      ...factory.parameters.map(({ path, size }) => [path, size] as const),
      ...factory.buffers.map(({ path, value }) => [path, value.size] as const),
    ]);
    const covered = new Map([...sizes].map(([path, size]) => [path, new Uint8Array(size)]));
    for (const { path, start, shape, isCopy } of diskTensors(factory)) {
      if (isCopy) continue;
      const marks = covered.get(path)!;
      for (let i = start; i < start + sizeOf(shape); i++) marks[i]!++;
    }
    for (const [path, marks] of covered) expect(new Set(marks), path).toEqual(new Set([1]));
  });

  test("keep the router, its bias and every norm exact; embedding, head and MTP's joint are never FP8", () => {
    for (const { name, kind } of [...planned(tinyConfig()), ...planned(tinyConfig({ qLoraRank: null }))]) {
      const isExact = /norm|\.gate\.weight|e_score/.test(name);
      const isLinear = /self_attn\.\w+_proj|(gate|up|down)_proj/.test(name);
      expect(kind, name).toBe(isExact ? "exact" : isLinear ? "linear" : "matrix");
    }
  });

  test("are linears where, and only where, the FP8 recipe multiplies in FP8", () => {
    const device = new QueueDevice(new PlanBackend(), Number.MAX_SAFE_INTEGER);
    const options = { precision: precisions.fp8, isTrained: false };
    for (const config of [tinyConfig(), tinyConfig({ qLoraRank: null })]) {
      const factory = new ParameterFactory(device, config, options);
      new Transformer(config, factory);
      const inFp8 = new Set(factory.parameters.filter(({ fp8 }) => fp8 !== null).map(({ path }) => path));
      expect(inFp8.size).toBeGreaterThan(10);
      for (const { name, path, kind } of diskTensors(factory))
        expect({ name, isLinear: kind === "linear" }).toEqual({ name, isLinear: inFp8.has(path) });
    }
  });

  test("call MTP's embedding and head copies of the main model's, and nothing else", () => {
    const copies = planned(tinyConfig({ numNextnPredictLayers: 2 })).filter(({ isCopy }) => isCopy);
    expect(copies.map(({ name, path }) => [name, path])).toEqual([
      ["model.layers.2.embed_tokens.weight", "model.embedTokens.weight"],
      ["model.layers.2.shared_head.head.weight", "lmHead.weight"],
      ["model.layers.3.embed_tokens.weight", "model.embedTokens.weight"],
      ["model.layers.3.shared_head.head.weight", "lmHead.weight"],
    ]);
  });
});
