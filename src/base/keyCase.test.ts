import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { renameKeys, toCamelCase, toSnakeCase } from "./keyCase.ts";

/** Every key of the released DeepSeek-V3 config.json, and those that transformers and V3.1 add to it. */
const releasedConfig = {
  architectures: ["DeepseekV3ForCausalLM"],
  attention_bias: false,
  attention_dropout: 0.0,
  auto_map: {
    AutoConfig: "configuration_deepseek.DeepseekV3Config",
    AutoModel: "modeling_deepseek.DeepseekV3Model",
    AutoModelForCausalLM: "modeling_deepseek.DeepseekV3ForCausalLM",
  },
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
    scale_fmt: "ue8m0",
    weight_block_size: [128, 128],
  },
  rms_norm_eps: 1e-6,
  rope_interleave: true,
  rope_scaling: {
    beta_fast: 32,
    beta_slow: 1,
    factor: 40,
    mscale: 1.0,
    mscale_all_dim: 1.0,
    original_max_position_embeddings: 4096,
    rope_type: "yarn",
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

describe("toCamelCase and toSnakeCase", () => {
  test.each([
    ["kv_lora_rank", "kvLoraRank"],
    ["n_routed_experts", "nRoutedExperts"],
    ["first_k_dense_replace", "firstKDenseReplace"],
    ["v_head_dim", "vHeadDim"],
    ["mscale_all_dim", "mscaleAllDim"],
    ["layer_2_norm", "layer_2Norm"],
    ["AutoModelForCausalLM", "AutoModelForCausalLM"],
    ["_private", "_private"],
    ["", ""],
  ])("%j is %j and back", (snake, camel) => {
    expect(toCamelCase(snake)).toBe(camel);
    expect(toSnakeCase(camel)).toBe(snake);
  });

  test("any snake_case name survives the round trip", () => {
    const names = fc.stringMatching(/^[a-z][a-z0-9_]{0,20}$/);
    fc.assert(
      fc.property(names, (name) => {
        expect(toSnakeCase(toCamelCase(name))).toBe(name);
      }),
    );
  });
});

describe("renameKeys", () => {
  test("round-trips the whole released config.json", () => {
    const camel = renameKeys(releasedConfig, toCamelCase);
    expect(renameKeys(camel, toSnakeCase)).toEqual(releasedConfig);
  });

  test("leaves no snake_case key behind, at any depth, and touches no value", () => {
    const camel = JSON.stringify(renameKeys(releasedConfig, toCamelCase));
    expect(camel.match(/"[a-z0-9]+_[a-z0-9_]+":/g)).toBeNull();
    expect(camel).toContain('"topkMethod":"noaux_tc"');
    expect(camel).toContain('"originalMaxPositionEmbeddings":4096');
    expect(camel).toContain('"weightBlockSize":[128,128]');
  });
});
