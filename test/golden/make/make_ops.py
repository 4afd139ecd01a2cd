"""Writes test/golden/ops/*.safetensors: single operations of PyTorch, forward and backward, computed in float64.

    .venv/bin/python make_ops.py

Inputs are float32 values, so that they are exact; results are rounded to float32 once. Names beginning with
`d_` are gradients of sum(d_out * out), where `d_out` is an input.
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from forward import Run, router_dumps
from provenance import provenance
from reference import ROUTER_MARGIN, build, precision
from variants import BASE

OPS = Path(__file__).resolve().parent.parent / "ops"
SEED = 10
GENERATOR = torch.Generator().manual_seed(SEED)


def normal(*shape: int, scale: float = 1.0) -> Tensor:
    """float32 values held in float64."""
    return (torch.randn(shape, generator=GENERATOR) * scale).float().double()


def gradients(out: Tensor, d_out: Tensor, **inputs: Tensor) -> dict[str, Tensor]:
    found = torch.autograd.grad(out, list(inputs.values()), d_out)
    return {f"d_{name}": g for name, g in zip(inputs, found, strict=True)}


def need_grad(*inputs: Tensor) -> None:
    for x in inputs:
        x.requires_grad_(True)


def rmsnorm() -> dict[str, Tensor]:
    x, weight, d_out = normal(13, 48), 0.5 + normal(48).abs(), normal(13, 48)
    weight = weight.float().double()
    # Row 0 is zero, row 1 so small that eps decides, row 2 large.
    x = (x * torch.tensor([0.0, 1e-3, 1e3] + [1.0] * 10)[:, None]).float().double()
    need_grad(x, weight)
    out = F.rms_norm(x, (48,), weight, eps=1e-6)
    return {"x": x, "weight": weight, "d_out": d_out, "out": out, **gradients(out, d_out, x=x, weight=weight)}


def swiglu() -> dict[str, Tensor]:
    gate, up, d_out = normal(9, 40, scale=2), normal(9, 40), normal(9, 40)
    gate[0, :6] = torch.tensor([-100.0, -40.0, -20.0, 0.0, 20.0, 100.0])
    need_grad(gate, up)
    out = F.silu(gate) * up
    return {"gate": gate, "up": up, "d_out": d_out, "out": out, **gradients(out, d_out, gate=gate, up=up)}


def rope() -> dict[str, Tensor]:
    """Interleaved pairs as complex numbers; rows are [3 heads x 16], positions restart with each sequence."""
    positions = torch.cat([torch.arange(n) for n in (1, 12, 7)] + [torch.tensor([4095, 163839])])
    x, d_out = normal(len(positions), 3, 16), normal(len(positions), 3, 16)
    need_grad(x)
    inv_freq = 10000 ** (-torch.arange(0, 16, 2).double() / 16)
    turn = torch.polar(torch.ones(1).double(), positions[:, None].double() * inv_freq)[:, None]
    out = torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * turn).flatten(-2)
    return {"positions": positions, "inv_freq": inv_freq, "x": x, "d_out": d_out, "out": out, **gradients(out, d_out, x=x)}


def attention() -> dict[str, Tensor]:
    """Causal MLA over five sequences of 1 to 40 rows; the rotary key is shared by all heads."""
    n, dn, dr, dv = 3, 16, 8, 12
    offsets = torch.tensor([0, 1, 6, 23, 40, 80])
    t = int(offsets[-1])
    q_nope, q_rope, k_nope, k_rope = normal(t, n, dn), normal(t, n, dr), normal(t, n, dn), normal(t, dr)
    v, d_out, scale = normal(t, n, dv), normal(t, n, dv), (dn + dr) ** -0.5
    need_grad(q_nope, q_rope, k_nope, k_rope, v)
    parts, lse = [], []
    for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        q = torch.cat([q_nope, q_rope], -1)[start:end].transpose(0, 1)
        k = torch.cat([k_nope, k_rope[:, None].expand(-1, n, -1)], -1)[start:end].transpose(0, 1)
        parts.append(F.scaled_dot_product_attention(q, k, v[start:end].transpose(0, 1), is_causal=True, scale=scale).transpose(0, 1))
        scores = (q @ k.mT * scale).masked_fill(torch.ones(end - start, end - start, dtype=torch.bool).triu(1), float("-inf"))
        lse.append(scores.logsumexp(-1).T)
        torch.testing.assert_close((scores.softmax(-1) @ v[start:end].transpose(0, 1)).transpose(0, 1), parts[-1])
    out = torch.cat(parts)
    inputs = {"q_nope": q_nope, "q_rope": q_rope, "k_nope": k_nope, "k_rope": k_rope, "v": v}
    return {"sequence_offsets": offsets, **inputs, "d_out": d_out, "out": out, "lse": torch.cat(lse), **gradients(out, d_out, **inputs)}


def cross_entropy() -> dict[str, Tensor]:
    """Mean over targets that are not -100, through the output matrix; one logit row has an outlier of 80."""
    hidden, weight = normal(11, 16), normal(37, 16)
    targets = torch.randint(37, (11,), generator=GENERATOR)
    targets[3], targets[10] = -100, -100
    hidden[5] = (hidden[5] * 80 / (hidden[5] @ weight[int(targets[5])]).abs()).float().double()
    need_grad(hidden, weight)
    logits = hidden @ weight.T
    loss = F.cross_entropy(logits, targets, ignore_index=-100)
    each = F.cross_entropy(logits, targets, ignore_index=-100, reduction="none")
    found = gradients(loss, torch.ones(()).double(), hidden=hidden, weight=weight, logits=logits)
    return {"hidden": hidden, "weight": weight, "targets": targets, "logits": logits, "loss": loss, "loss_of_each_row": each, **found}


def adamw() -> dict[str, Tensor]:
    """Five steps under a falling rate; the second half of the parameters has no decay. One gradient is zero throughout."""
    p, grads = normal(2, 60), normal(5, 2, 60, scale=0.1)
    grads[:, :, 7] = 0.0
    rates = torch.tensor([1e-2, 1e-2, 5e-3, 2e-3, 1e-3]).double()
    rows = [row.clone().requires_grad_(True) for row in p]
    groups = [{"params": [rows[0]], "weight_decay": 0.1}, {"params": [rows[1]], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8)
    after = []
    for step in range(5):
        for group in optimizer.param_groups:
            group["lr"] = float(rates[step])
        for row, g in zip(rows, grads[step], strict=True):
            row.grad = g.clone()
        optimizer.step()
        after.append(torch.stack([row.detach().clone() for row in rows]))
    moments = {k: torch.stack([optimizer.state[row][k] for row in rows]) for k in ("exp_avg", "exp_avg_sq")}
    return {"param": p, "grads": grads, "rates": rates, "after": torch.stack(after), **moments}


def muon() -> dict[str, Tensor]:
    """Three steps of torch.optim.Muon with Moonlight's rate, of a wide and a tall matrix.

    PyTorch multiplies in bfloat16 whatever the parameters are: `after_bf16` is that, `after` is the same code with
    float64 in the place of that dtype.
    """
    from types import SimpleNamespace

    from torch.optim import _muon as implementation

    generator = torch.Generator().manual_seed(SEED + 1)
    made: dict[str, Tensor] = {}
    for name, shape in {"wide": (12, 40), "tall": (33, 7)}.items():
        draw = lambda *size: torch.randn(*size, generator=generator).float().double()
        param, grads = draw(*shape), draw(3, *shape) * 0.1
        made |= {f"{name}_param": param, f"{name}_grads": grads}
        for suffix, dtype in {"": torch.float64, "_bf16": torch.bfloat16}.items():
            implementation.torch = SimpleNamespace(**{**vars(torch), "bfloat16": dtype})
            w = param.clone().requires_grad_(True)
            optimizer = torch.optim.Muon([w], lr=1e-2, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
            after = []
            for g in grads:
                w.grad = g.clone()
                optimizer.step()
                after.append(w.detach().clone())
            made[f"{name}_after{suffix}"] = torch.stack(after)
    implementation.torch = torch
    return made


def clip() -> dict[str, Tensor]:
    a, b = normal(7, 9), normal(31)
    pair = [torch.nn.Parameter(torch.zeros_like(x)) for x in (a, b)]
    for parameter, g in zip(pair, (a, b), strict=True):
        parameter.grad = g.clone()
    norm = torch.nn.utils.clip_grad_norm_(pair, 1.0)
    return {"a": a, "b": b, "norm": norm, "clipped_a": pair[0].grad, "clipped_b": pair[1].grad}


def router(normalise: bool) -> dict[str, Tensor]:
    """transformers' own router on 16 experts in 4 groups of which 2, top 4; the weights' gradient reaches x and the gate."""
    with precision(torch.float64):
        settings = {**BASE, "n_routed_experts": 16, "n_group": 4, "topk_group": 2, "num_experts_per_tok": 4, "norm_topk_prob": normalise}
        gate = build(settings, None, torch.float64).main.model.layers[1].mlp.gate
        bias = normal(16, scale=0.1)
        gate.weight.data, gate.e_score_correction_bias = normal(16, 32, scale=0.35), bias
        x, d_out = normal(24, 32), normal(24, 4)
        need_grad(x)
        logits, weights, ids = gate(x)
        run = Run()
        router_dumps(gate, (logits, weights, ids), 1, run)
        assert run.margin > ROUTER_MARGIN, f"a choice is only {run.margin} from a tie: take another seed"
        ids, order = ids.sort(-1)
        out = weights.gather(1, order)
        found = gradients(out, d_out, x=x, gate=gate.weight, logits=logits)
    return {"x": x, "gate": gate.weight, "bias": bias, "logits": logits, "topk_idx": ids, "out": out, "d_out": d_out, **found}


def bf16() -> dict[str, Tensor]:
    """4096 float32 bit patterns and what they round to: ties both ways, subnormals, overflow, infinities, signed zeros."""
    bits = torch.randint(-(2**31), 2**31, (3072,), generator=GENERATOR, dtype=torch.int64)
    ties = (bits[:512] & ~0xFFFF) | 0x8000
    beside = torch.cat([ties[:128] + 1, ties[:128] - 1])
    subnormal = torch.randint(0, 2**23, (240,), generator=GENERATOR, dtype=torch.int64)
    special = torch.tensor([0, -(2**31), 0x7F800000, 0xFF800000 - 2**32, 0x7F7FFFFF, 0x7F7F8000, 0x7F7F7FFF, 1, 0x8000, 0x8001, 0x7FFF, 0x3F808000, 0x3F818000, 0x00800000, 0x007FFFFF, 0xFF7FFFFF - 2**32])  # fmt: skip
    bits = torch.cat([bits, ties, beside, subnormal, special])
    assert bits.numel() == 4096
    values = bits.to(torch.int32).view(torch.float32)
    values = torch.where(values.isnan(), torch.ones(()), values)
    rounded = values.to(torch.bfloat16)
    # Round to nearest, ties to even, in integers: torch's vector code must not have flushed anything.
    raw = values.view(torch.int32).to(torch.int64)
    expected = ((raw + 0x7FFF + ((raw >> 16) & 1)) >> 16) & 0xFFFF
    assert torch.equal(rounded.view(torch.int16).to(torch.int64) & 0xFFFF, expected)
    return {"x_bits": values.view(torch.int32), "x": values, "out": rounded, "out_bits": expected}


def stored(t: Tensor) -> Tensor:
    t = t.detach().reshape(1) if t.ndim == 0 else t.detach()
    if t.dtype == torch.bfloat16:
        return t.contiguous()
    return t.to(torch.float32 if t.is_floating_point() else torch.int32).contiguous().clone()


def main() -> None:
    OPS.mkdir(exist_ok=True)
    made = {
        "rmsnorm": rmsnorm(), "swiglu": swiglu(), "rope": rope(), "attention": attention(), "cross_entropy": cross_entropy(),
        "adamw": adamw(), "clip": clip(), "router": router(True), "router_unnormalised": router(False), "bf16": bf16(),
        "muon": muon(),
    }  # fmt: skip
    for name, tensors in made.items():
        save_file({n: stored(t) for n, t in tensors.items()}, OPS / f"{name}.safetensors", {"format": "pt"})
    (OPS / "provenance.json").write_text(json.dumps(provenance("python make_ops.py", SEED), indent=2) + "\n")
    for file in sorted(OPS.glob("*.safetensors")):
        print(f"{file.name}: {file.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
