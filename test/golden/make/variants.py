"""The tiny DeepSeek-V3 models that the golden tensors are made from: what each changes, and why."""

from dataclasses import dataclass, field
from typing import Any

# Every width differs from every other one where it may, so that a mixed-up axis cannot go unseen:
# v_head_dim != qk_nope_head_dim, ranks != head widths, vocabulary not a multiple of a power of two.
BASE: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "vocab_size": 72,
    "hidden_size": 32,
    "intermediate_size": 48,
    "moe_intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_nextn_predict_layers": 0,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "n_shared_experts": 1,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "routed_scaling_factor": 2.5,
    "n_group": 2,
    "topk_group": 1,
    "norm_topk_prob": True,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "moe_layer_freq": 1,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 20,
    "q_lora_rank": 24,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
    "max_position_embeddings": 128,
    "rope_theta": 10000,
    "rope_scaling": None,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "initializer_range": 0.02,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "use_cache": True,
    "torch_dtype": "float32",
}


def yarn(factor: float, **more: float) -> dict[str, Any]:
    return {"type": "yarn", "rope_type": "yarn", "factor": factor, "original_max_position_embeddings": 32, **more}


RAMP = {"beta_fast": 32, "beta_slow": 1}


@dataclass(frozen=True)
class Variant:
    name: str
    why: str
    changes: dict[str, Any] = field(default_factory=dict)
    batch: tuple[int, int] = (2, 16)
    """[sequences, tokens] of the main set; a second set of one long sequence holds logits and choices only."""
    long: int = 40
    detailed: bool = False
    """Dump every intermediate; otherwise only what the variant is about."""
    gradients: bool = True
    seed: int = 0


VARIANTS = [
    Variant(
        "a00-base",
        "3 layers, one MTP module, every dump; layer 2 has strongly negative router biases, so that a rejected group filled with 0 instead of -inf would win",
        {"num_hidden_layers": 3, "num_nextn_predict_layers": 1},
        detailed=True,
        seed=100,
    ),
    Variant("a01-no-q-lora", "q_lora_rank null: one q_proj, no query latent", {"q_lora_rank": None}, seed=101),
    Variant("a02-no-groups", "n_group 1, topk_group 1: no group limit", {"n_group": 1}, seed=102),
    Variant("a03-no-topk-norm", "norm_topk_prob false: chosen scores are scaled, not normalised", {"norm_topk_prob": False}, seed=103),
    Variant(
        "a04-yarn",
        "YaRN with equal mscales: the softmax scale grows, cos and sin do not; the sequence is longer than the original length",
        {"qk_rope_head_dim": 16, "rope_scaling": yarn(4, **RAMP, mscale=1.0, mscale_all_dim=1.0)},
        batch=(1, 40),
        long=100,
        seed=104,
    ),
    Variant(
        "a05-yarn-mscale",
        "YaRN with mscale 1 and mscale_all_dim 0.5: cos and sin are scaled as well",
        {"qk_rope_head_dim": 16, "rope_scaling": yarn(4, **RAMP, mscale=1.0, mscale_all_dim=0.5)},
        batch=(1, 40),
        long=100,
        seed=105,
    ),
    Variant(
        "a06-yarn-bare",
        "YaRN without mscale keys: cos and sin are scaled by 0.1 ln(factor) + 1, the softmax scale is not",
        {"qk_rope_head_dim": 16, "rope_scaling": yarn(4, **RAMP)},
        batch=(1, 40),
        long=100,
        gradients=False,
        seed=106,
    ),
    Variant(
        "a07-yarn-step",
        "YaRN with beta_fast = beta_slow: the ramp is a step (as in Kimi-K2)",
        {"qk_rope_head_dim": 16, "rope_theta": 50000, "rope_scaling": yarn(32, beta_fast=1, beta_slow=1, mscale=1.0, mscale_all_dim=1.0)},
        batch=(1, 40),
        long=100,
        gradients=False,
        seed=107,
    ),
    Variant("a08-block-eps", "rms_norm_eps 1e-2: the latent norms keep 1e-6, all others do not", {"rms_norm_eps": 1e-2}, seed=108),
    Variant("a10-two-shared", "n_shared_experts 2: one fused MLP of twice the width", {"n_shared_experts": 2}, seed=110),
    Variant("a14-dense", "first_k_dense_replace = layers: no experts at all", {"first_k_dense_replace": 2}, seed=114),
    Variant(
        "a15-sixteen-experts",
        "16 experts, 4 groups of which 2, top 4",
        {"n_routed_experts": 16, "n_group": 4, "topk_group": 2, "num_experts_per_tok": 4},
        seed=115,
    ),
    Variant("a20-mtp-depth-2", "two chained MTP modules", {"num_nextn_predict_layers": 2}, seed=120),
]


def config_of(variant: Variant) -> dict[str, Any]:
    return {**BASE, **variant.changes}
