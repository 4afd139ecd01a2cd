"""Writes test/golden/b00-bf16/ and b00-fp8/: one model before and after its weights went to FP8, and what transformers computes.

    .venv/bin/python make_fp8_model.py

The quantiser is fp8_weights.py: divisions and PyTorch's own cast to float8_e4m3fn. One matrix has 192 rows, a block and a
half; one block holds zeros only, one an outlier. In b00-fp8 some scales lie in another file than their weights.
"""

import hashlib
import json
import shutil
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers.models.deepseek_v3.modeling_deepseek_v3 as v3
from safetensors.torch import save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

import fp8_weights as fp8
from forward import IGNORED, Run, run_main, shifted
from make_models import GOLDEN, LEAN, one_line_each, relative, stored
from provenance import provenance
from reference import WithMtp, build, draw_weights, per_expert, precision
from variants import BASE

SEED = 200
NAME = "b00-fp8"
CONFIG: dict[str, Any] = {
    **BASE,
    "vocab_size": 256,
    "hidden_size": 256,
    "intermediate_size": 384,
    "moe_intermediate_size": 128,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "q_lora_rank": 128,
    "kv_lora_rank": 128,
    "qk_nope_head_dim": 64,
    "qk_rope_head_dim": 64,
    "v_head_dim": 64,
    "n_routed_experts": 4,
    "n_group": 1,
    "torch_dtype": "bfloat16",
}
FP8_CONFIG = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
MARGIN = 0.02
"""Routers must choose alike with activations in FP8, whose errors are of a few percent."""


def is_fp8(name: str, tensor: Tensor) -> bool:
    """Every linear inside the layers but the router."""
    return name.startswith("model.layers.") and tensor.ndim == 2 and not name.endswith("mlp.gate.weight")


def draw() -> dict[str, Tensor]:
    """Published names; BF16 as released, router biases F32."""
    weights = draw_weights(build(CONFIG, None, torch.float32), SEED)
    tensors = per_expert(weights, CONFIG["num_hidden_layers"])
    tensors["model.layers.0.mlp.gate_proj.weight"][:128, :128] = 0
    tensors["model.layers.1.mlp.experts.0.down_proj.weight"][3, 5] = 20
    return {n: t.contiguous() if n.endswith("correction_bias") else t.bfloat16().contiguous() for n, t in tensors.items()}


def quantised(tensors: dict[str, Tensor], power_of_two: bool) -> dict[str, Tensor]:
    out = {}
    for name, tensor in tensors.items():
        if is_fp8(name, tensor):
            out[name], out[name + fp8.SCALE] = fp8.quantise(tensor.float(), power_of_two)
        else:
            out[name] = tensor
    return out


def load(tensors: dict[str, Tensor], dtype: torch.dtype) -> WithMtp:
    """Through files and the released class's own loader."""
    with tempfile.TemporaryDirectory() as folder:
        save_file(tensors, Path(folder) / "model.safetensors", {"format": "pt"})
        (Path(folder) / "config.json").write_text(json.dumps(CONFIG))
        single = dtype if dtype != torch.float64 else torch.float32
        main = v3.DeepseekV3ForCausalLM.from_pretrained(folder, dtype=single, attn_implementation="eager", experts_implementation="eager")
    model = build(CONFIG, None, dtype)
    state = {f"main.{n}": t.to(dtype) if t.is_floating_point() else t for n, t in main.state_dict().items()}
    model.load_state_dict(state)
    return model


class Fp8Inputs(TorchFunctionMode):
    """Rounds what enters the FP8 linears: per token and 128 channels, scale = max(amax, 1e-4) / 448."""

    def __init__(self, model: WithMtp):
        super().__init__()
        exact = [model.main.lm_head.weight, *(m.gate.weight for m in model.main.modules() if isinstance(m, v3.DeepseekV3MoE))]
        self.exact = {w.data_ptr() for w in exact}
        self.calls = 0

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func is F.linear and args[1].data_ptr() not in self.exact:
            self.calls += 1
            args = (act_quant(args[0]), *args[1:])
        return func(*args, **(kwargs or {}))


def act_quant(x: Tensor) -> Tensor:
    """Quantised and dequantised again, in tiles of 1 x 128; the zeros that fill up the last one do not change its maximum."""
    width = x.shape[-1]
    tiles = F.pad(x.float().reshape(-1, width), (0, -width % 128)).reshape(-1, 128)
    scales = tiles.abs().amax(1, keepdim=True).clamp(min=1e-4) / fp8.LARGEST
    rounded = (tiles / scales).to(torch.float8_e4m3fn).double() * scales.double()
    return rounded.reshape(-1, width + -width % 128)[:, :width].reshape(x.shape).to(x.dtype)


def run(model: WithMtp, ids: Tensor, labels: Tensor) -> Run:
    with torch.no_grad(), precision(torch.float64):
        return run_main(model, ids, labels)


def choices_and_logits(model: WithMtp, ids: Tensor, inputs_in_fp8: bool) -> tuple[list[Tensor], Tensor]:
    """Experts by router, ascending, and logits. (run_main's cross-checks do not hold when inputs are rounded.)"""
    chosen: list[Tensor] = []
    gates = [m.gate for m in model.main.modules() if isinstance(m, v3.DeepseekV3MoE)]
    hooks = [gate.register_forward_hook(lambda _m, _i, output: chosen.append(output[2].sort(-1).values)) for gate in gates]
    mode = Fp8Inputs(model)
    with torch.no_grad(), precision(torch.float64), mode if inputs_in_fp8 else nullcontext():
        logits = model.main(input_ids=ids, use_cache=False).logits
    for hook in hooks:
        hook.remove()
    assert (mode.calls > 0) == inputs_in_fp8
    return chosen, logits.reshape(-1, logits.shape[-1])


def draw_ids(exact: WithMtp, rounded: WithMtp) -> Tensor:
    generator = torch.Generator().manual_seed(SEED + 1000)
    found: list[Tensor] = []
    for _ in range(20_000):
        ids = torch.randint(CONFIG["vocab_size"], (1, 16), generator=generator)
        if run(exact, ids, ids).margin < MARGIN:
            continue
        plain, *others = (choices_and_logits(*how)[0] for how in ((exact, ids, False), (exact, ids, True), (rounded, ids, False)))
        if all(torch.equal(a, b) for other in others for a, b in zip(plain, other, strict=True)):
            found.append(ids)
            if len(found) == 2:
                return torch.cat(found)
    raise RuntimeError("no sequence keeps its distance from router ties; take another seed")


def sha256(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def hashes(tensors: dict[str, Tensor]) -> dict[str, str]:
    return {name: sha256(tensor) for name, tensor in tensors.items()}


def write_checkpoint(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any], is_split: bool) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    if not is_split:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return
    # Experts apart from the rest, and the experts' scales with the rest.
    is_second = {n: ".experts." in n and not n.endswith(fp8.SCALE) for n in tensors}
    files = {n: f"model-0000{1 + second}-of-000002.safetensors" for n, second in is_second.items()}
    for file in sorted(set(files.values())):
        save_file({n: t for n, t in tensors.items() if files[n] == file}, folder / file, {"format": "pt"})
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(files.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def bfloat16_runs(tensors: dict[str, Tensor], ids: Tensor) -> Tensor:
    """What the released class computes when all of it is bfloat16."""
    model = load(tensors, torch.bfloat16)
    with torch.no_grad():
        return model.main(input_ids=ids, use_cache=False).logits.reshape(-1, CONFIG["vocab_size"])


def main() -> None:
    source = draw()
    codes, powers = (quantised(source, power_of_two) for power_of_two in (False, True))
    plain = fp8.dequantised(codes)
    rounded = {n: t.bfloat16() if is_fp8(n, t) else t for n, t in plain.items()}
    exact, bf16 = load(plain, torch.float64), load(rounded, torch.float64)
    ids = draw_ids(exact, bf16)
    labels = ids.clone()
    labels[:, 5] = IGNORED
    golden = run(exact, ids, labels)
    dumps = {n: t for n, t in golden.dumps.items() if not n.startswith("layers.") or n.split(".")[-1] in LEAN}
    dumps["bf16_weights.logits"] = run(bf16, ids, labels).dumps["logits"]
    dumps["bf16.logits"] = bfloat16_runs(rounded, ids)
    dumps["fp8_inputs.logits"] = choices_and_logits(exact, ids, True)[1]
    sets = {"input_ids": ids, "labels": labels, "targets": shifted(labels, 1), "sequence_offsets": torch.arange(3) * ids.shape[1]}

    command = "python make_fp8_model.py"
    write_checkpoint(GOLDEN / "b00-bf16", source, CONFIG, is_split=False)
    folder = GOLDEN / NAME
    write_checkpoint(folder, codes, {**CONFIG, "quantization_config": FP8_CONFIG}, is_split=True)
    for one in (GOLDEN / "b00-bf16", folder):
        (one / "provenance.json").write_text(json.dumps(provenance(command, SEED), indent=2) + "\n")
    ready = stored({**sets, **dumps})
    save_file(ready, folder / "goldens.safetensors", {"format": "pt"})
    manifest = {
        "variant": NAME,
        "why": "weights in FP8 with a scale per 128 x 128 block: ragged rows, a block of zeros, an outlier, scales in another file",
        "precision": "computed in float64 on the dequantised weights, stored as float32",
        "scalars": {
            "loss_mean": float(golden.losses["loss_mean"]),
            "router_margin": golden.margin,
            **{f"{n}_error": relative(dumps[n], dumps["logits"]) for n in dumps if n.endswith(".logits")},
        },
        "sha256": {
            "fp8": hashes({n: t for n, t in codes.items() if n not in source or is_fp8(n, t)}),
            "fp8_power_of_two": hashes({n: t for n, t in powers.items() if n not in source or is_fp8(n, t)}),
            "dequantised_f32": hashes({n: plain[n] for n in source if is_fp8(n, source[n])}),
            "dequantised_bf16": hashes({n: rounded[n] for n in source if is_fp8(n, source[n])}),
        },
    }
    (folder / "manifest.json").write_text(one_line_each(manifest))
    print(json.dumps(manifest["scalars"], indent=1))


if __name__ == "__main__":
    main()
