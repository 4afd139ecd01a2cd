import { describe, expect, test } from "vitest";
import { ConfigError } from "../base/index.ts";
import { modelConfigFromJson, modelConfigToJson } from "./configJson.ts";
import { parseModelConfig } from "./configSchema.ts";
import { presetConfig, presets, v3671b } from "./presets.ts";

/** The released file of DeepSeek-V3 (keys and values as interop.md 1.1 lists them). */
const released = {
  architectures: ["DeepseekV3ForCausalLM"],
  attention_bias: false,
  attention_dropout: 0.0,
  auto_map: { AutoConfig: "configuration_deepseek.DeepseekV3Config" },
  aux_loss_alpha: 0.001,
  bos_token_id: 0,
  eos_token_id: 1,
  ep_size: 1,
  first_k_dense_replace: 3,
  hidden_act: "silu",
  hidden_size: 7168,
  initializer_range: 0.02,
  intermediate_size: 18432,
  kv_lora_rank: 512,
  max_position_embeddings: 163840,
  model_type: "deepseek_v3",
  moe_intermediate_size: 2048,
  moe_layer_freq: 1,
  n_group: 8,
  n_routed_experts: 256,
  n_shared_experts: 1,
  norm_topk_prob: true,
  num_attention_heads: 128,
  num_experts_per_tok: 8,
  num_hidden_layers: 61,
  num_key_value_heads: 128,
  num_nextn_predict_layers: 1,
  pretraining_tp: 1,
  q_lora_rank: 1536,
  qk_nope_head_dim: 128,
  qk_rope_head_dim: 64,
  quantization_config: {
    activation_scheme: "dynamic",
    fmt: "e4m3",
    quant_method: "fp8",
    weight_block_size: [128, 128],
  },
  rms_norm_eps: 1e-6,
  rope_scaling: {
    beta_fast: 32,
    beta_slow: 1,
    factor: 40,
    mscale: 1.0,
    mscale_all_dim: 1.0,
    original_max_position_embeddings: 4096,
    type: "yarn",
  },
  rope_theta: 10000,
  routed_scaling_factor: 2.5,
  scoring_func: "sigmoid",
  seq_aux: true,
  tie_word_embeddings: false,
  topk_group: 4,
  topk_method: "noaux_tc",
  torch_dtype: "bfloat16",
  transformers_version: "4.33.1",
  use_cache: true,
  v_head_dim: 128,
  vocab_size: 129280,
};

describe("ModelConfig", () => {
  test("reads and writes the released config.json without losing a key", () => {
    const json = modelConfigToJson(modelConfigFromJson(released, "config.json"));
    const { rope_scaling: scaling, ...rest } = json;
    const { rope_scaling: wanted, ...released2 } = released;
    expect(rest).toMatchObject(released2);
    expect(scaling).toEqual({ ...wanted, rope_type: "yarn" });
  });

  test("the preset v3-671b is the released model", () => {
    const {
      autoMap: _,
      epSize: _e,
      pretrainingTp: _p,
      transformersVersion: _t,
      auxLossAlpha: _a,
      ...config
    } = modelConfigFromJson(released, "config.json");
    expect(v3671b()).toEqual(config);
  });

  test("accepts rope_parameters and dtype as newer writers spell them", () => {
    const { rope_scaling, rope_theta, torch_dtype, ...rest } = released;
    const newer = {
      ...rest,
      dtype: torch_dtype,
      rope_parameters: { ...rope_scaling, type: undefined, rope_type: "yarn", rope_theta },
    };
    const config = modelConfigFromJson(JSON.parse(JSON.stringify(newer)), "config.json");
    expect(config.ropeScaling?.factor).toBe(40);
    expect(config.ropeTheta).toBe(10000);
    expect(config.torchDtype).toBe("bfloat16");
  });

  test("accepts FP8 as transformers describes it, which repeats what the tensors tell", () => {
    const { fmt: _, ...bare } = released.quantization_config;
    const quantization_config = {
      ...bare,
      ...{
        dequantize: false,
        modules_to_convert: null,
        modules_to_not_convert: ["lm_head"],
        scale_fmt: "float",
      },
    };
    const config = modelConfigFromJson({ ...released, quantization_config }, "config.json");
    expect(config.quantizationConfig).toEqual({
      ...{ quantMethod: "fp8", fmt: "e4m3", activationScheme: "dynamic" },
      ...{ weightBlockSize: [128, 128], scaleFmt: "float" },
    });
  });

  test.each([
    ["weight_block_size", { weight_block_size: [64, 64] }],
    ["weight_block_size", { weight_block_size: [1, 128] }],
    ["quant_method", { quant_method: "gptq" }],
    ["fmt", { fmt: "e5m2" }],
  ])("refuses weights whose %s it would read wrongly", (key, change) => {
    const quantization_config = { ...released.quantization_config, ...change };
    const read = (): unknown => modelConfigFromJson({ ...released, quantization_config }, "config.json");
    expect(read).toThrow(ConfigError);
    expect(read).toThrow(key);
  });

  test("refuses a RoPE kind that it cannot compute", () => {
    const linear = { ...released, rope_scaling: { ...released.rope_scaling, type: "linear" } };
    expect(() => modelConfigFromJson(linear, "config.json")).toThrow(ConfigError);
  });

  test("names the nearest key when one is misspelt", () => {
    expect(() => parseModelConfig({ ...presetConfig("unit"), nGroups: 2 }, "--set")).toThrow(/nGroup\b/);
  });

  test.each([
    ["nGroup", { nGroup: 3 }],
    // Eight experts in eight groups: no group has the two by which it is scored.
    ["nGroup", { nGroup: 8, topkGroup: 8 }],
    ["topkGroup", { topkGroup: 5 }],
    ["numExpertsPerTok", { numExpertsPerTok: 8, topkGroup: 1 }],
    ["qkRopeHeadDim", { qkRopeHeadDim: 7 }],
    ["firstKDenseReplace", { firstKDenseReplace: 9 }],
    ["hiddenSize", { hiddenSize: -1 }],
  ])("refuses an impossible %s", (key, change) => {
    expect(() => parseModelConfig({ ...presetConfig("unit"), ...change }, "--set")).toThrow(key);
  });

  test("every preset is complete and frozen", () => {
    for (const make of Object.values(presets)) {
      expect(Object.isFrozen(make())).toBe(true);
      expect(modelConfigFromJson(modelConfigToJson(make()), "round trip")).toEqual(make());
    }
  });

  test("suggests the nearest preset", () => {
    expect(() => presetConfig("nanno")).toThrow(/--preset nano/);
  });
});
