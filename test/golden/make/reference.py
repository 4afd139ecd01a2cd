"""The reference implementation (transformers' DeepSeek-V3), in float32 as released and in float64 throughout."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
import transformers.modeling_rope_utils as rope_utils
import transformers.models.deepseek_v3.modeling_deepseek_v3 as v3
from torch import Tensor, nn
from transformers.modeling_layers import MtpLayer

torch.use_deterministic_algorithms(True)
torch.set_num_threads(1)
# As in torch's builds without CUDA: there is no stream to ask. (See cpu_only_torch.py.)
torch.cuda.is_current_stream_capturing = lambda: False

ROUTER_MARGIN = 1e-3
"""No choice of the router may be closer than this: an implementation that rounds otherwise must choose alike."""


class Float64Torch:
    """Stands in for the name `torch` inside the reference's modules, so that its float32 casts mean float64."""

    float32 = float = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def rotary_in_float64(self: nn.Module, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
    angles = position_ids[..., None].double() * self.inv_freq
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos() * self.attention_scaling, angles.sin() * self.attention_scaling


@contextlib.contextmanager
def precision(dtype: torch.dtype) -> Iterator[None]:
    """Inside, the reference computes in `dtype`. Models must be built and run inside."""
    if dtype == torch.float32:
        yield
        return
    forward = v3.DeepseekV3RotaryEmbedding.forward
    v3.torch = rope_utils.torch = Float64Torch()
    v3.DeepseekV3RotaryEmbedding.forward = rotary_in_float64
    try:
        yield
    finally:
        v3.torch = rope_utils.torch = torch
        v3.DeepseekV3RotaryEmbedding.forward = forward


class WithMtp(nn.Module):
    """The main model and its MTP modules, which transformers keeps apart from each other."""

    def __init__(self, config: v3.DeepseekV3Config):
        super().__init__()
        self.main = v3.DeepseekV3ForCausalLM(config)
        mtp_config = v3.DeepseekV3Config(**{**config.to_dict(), "first_k_dense_replace": 0})
        mtp_config._attn_implementation = mtp_config._experts_implementation = "eager"
        self.mtp = nn.ModuleList(
            MtpLayer(mtp_config, v3.DeepseekV3DecoderLayer, v3.DeepseekV3RMSNorm, k) for k in range(config.num_nextn_predict_layers)
        )


def build(config: dict[str, Any], weights: dict[str, Tensor] | None, dtype: torch.dtype) -> WithMtp:
    settings = {k: v for k, v in config.items() if k != "torch_dtype" and v is not None or k == "q_lora_rank"}
    hf = v3.DeepseekV3Config(**settings, attn_implementation="eager", experts_implementation="eager")
    model = WithMtp(hf).to(dtype).train()
    if weights is not None:
        model.load_state_dict(weights)
    return model


def draw_weights(model: WithMtp, seed: int) -> dict[str, Tensor]:
    """Weights under which every part matters: signals of order 1, norm gains away from 1, biased routers."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {}
    for name, old in model.state_dict().items():
        if name.endswith("e_score_correction_bias"):
            # The last of three layers gets the biases that tell -inf from 0 in rejected groups.
            strong = "main.model.layers.2." in name
            new = -0.9 - 0.5 * torch.rand(old.shape, generator=generator) if strong else 0.1 * torch.randn(old.shape, generator=generator)
        elif "norm" in name:
            new = 0.5 + torch.rand(old.shape, generator=generator)
        elif "embed_tokens" in name:
            new = torch.randn(old.shape, generator=generator)
        else:
            gain = 2.0 if "mlp.gate.weight" in name else 1.0
            new = torch.randn(old.shape, generator=generator) * gain / math.sqrt(old.shape[-1])
        drawn[name] = new.float()
    return drawn


def hf_name(name: str, layers: int) -> str:
    """Our module's parameter name -> the name in a published checkpoint."""
    if name.startswith("main."):
        return name.removeprefix("main.")
    _, k, rest = name.split(".", 2)
    rest = rest.removeprefix("mtp_block.").replace("post_norm.", "shared_head.norm.", 1)
    return f"model.layers.{layers + int(k)}.{rest}"


def per_expert(tensors: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Fused in-memory tensors -> one tensor per expert under published names."""
    out = {}
    for name, tensor in tensors.items():
        published = hf_name(name, layers)
        head, fused, kind = published.rpartition("experts.")
        if fused and kind == "gate_up_proj":
            for e, both in enumerate(tensor):
                gate, up = both.chunk(2)
                out[f"{head}experts.{e}.gate_proj.weight"], out[f"{head}experts.{e}.up_proj.weight"] = gate, up
        elif fused and kind == "down_proj":
            out |= {f"{head}experts.{e}.down_proj.weight": down for e, down in enumerate(tensor)}
        else:
            out[published] = tensor
    return out


def published_weights(weights: dict[str, Tensor], layers: int, depth: int) -> dict[str, Tensor]:
    """What model.safetensors holds: per-expert names, and the copies of embedding and head in MTP layers."""
    out = per_expert(weights, layers)
    for k in range(depth):
        out[f"model.layers.{layers + k}.embed_tokens.weight"] = out["model.embed_tokens.weight"]
        out[f"model.layers.{layers + k}.shared_head.head.weight"] = out["lm_head.weight"]
    return out
