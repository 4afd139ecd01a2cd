"""Checks the reference against vectors worked out independently from the published formulas."""

import math

import torch
import transformers.models.deepseek_v3.modeling_deepseek_v3 as v3

from reference import build, precision
from variants import BASE, VARIANTS, config_of


def check_rotation() -> None:
    """x = .1 .. .8 at position 3, base 10000."""
    expected = [-0.1272233, -0.1838865, 0.1683929, 0.4707907, 0.4817777, 0.6147278, 0.6975969, 0.8020964]
    x = torch.arange(1, 9)[None, None, None].double() / 10
    angles = 3 * 10000 ** (-torch.arange(0, 8, 2).double() / 8)
    angles = torch.cat([angles, angles])[None, None]
    half, _ = v3.apply_rotary_pos_emb_interleave(x, x, angles.cos(), angles.sin())
    got = torch.stack(half.chunk(2, -1), -1).flatten()
    torch.testing.assert_close(got, torch.tensor(expected).double(), rtol=0, atol=1e-7)


def check_router() -> None:
    """Two biases that choose the same experts; only the second tells -inf from 0 in rejected groups."""
    with precision(torch.float64):
        gate = build({**BASE, "hidden_size": 8}, None, torch.float64).main.model.layers[1].mlp.gate
        logits = torch.tensor([[0.4, -0.3, 1.2, 0.1, 0.5, 0.7, -1.0, 2.0]], dtype=torch.float64)
        gate.weight.data = torch.eye(8, dtype=torch.float64)
        for bias in ([0.1, -0.1, 0, 0.05, -0.2, -0.3, 0.2, 0], [-0.9, -0.8, -0.85, -0.95, -1.2, -1.3, -1.1, -1.4]):
            gate.e_score_correction_bias.copy_(torch.tensor(bias))
            _, weights, ids = gate(logits)
            chosen = dict(zip(ids[0].tolist(), weights[0].tolist(), strict=True))
            assert chosen.keys() == {0, 2}, chosen
            assert math.isclose(chosen[2], 1.405277, abs_tol=1e-6) and math.isclose(chosen[0], 1.094723, abs_tol=1e-6)


def yarn_frequencies(width: int, base: float, scaling: dict) -> list[float]:
    """The formula of the YaRN paper as the checkpoints use it."""
    factor, length = scaling["factor"], scaling["original_max_position_embeddings"]

    def corr(rotations: float) -> float:
        return width * math.log(length / (2 * math.pi * rotations)) / (2 * math.log(base))

    low = max(math.floor(corr(scaling.get("beta_fast", 32))), 0)
    high = min(math.ceil(corr(scaling.get("beta_slow", 1))), width - 1)
    high = high + 0.001 if low == high else high
    plain = [base ** (-2 * j / width) for j in range(width // 2)]
    ramp = [min(max((j - low) / (high - low), 0), 1) for j in range(width // 2)]
    return [f / factor * r + f * (1 - r) for f, r in zip(plain, ramp, strict=True)]


def check_yarn() -> None:
    for variant in VARIANTS:
        config = config_of(variant)
        if config["rope_scaling"] is None:
            continue
        with precision(torch.float64):
            got = build(config, None, torch.float64).main.model.rotary_emb.inv_freq
        expected = yarn_frequencies(config["qk_rope_head_dim"], config["rope_theta"], config["rope_scaling"])
        torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)
    four = yarn_frequencies(16, 10000, {"factor": 4, "original_max_position_embeddings": 32})
    assert [float(f"{f:.9g}") for f in four[:4]] == [1, 0.197642354, 0.025, 0.00790569415], four


def check() -> None:
    check_rotation()
    check_router()
    check_yarn()
