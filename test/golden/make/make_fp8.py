"""Writes test/golden/fp8/*.safetensors: PyTorch's float8_e4m3fn casts, and tiles and blocks quantised with them.

    .venv/bin/python make_fp8.py

PyTorch 2.15's cast saturates, infinities too. Everything is float32, divisions are true divisions; ragged edges are
padded with zeros for the maximum and cut off again.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from provenance import provenance

FP8 = Path(__file__).resolve().parent.parent / "fp8"
SEED = 20
GENERATOR = torch.Generator().manual_seed(SEED)
E4M3 = torch.float8_e4m3fn
TILE = 128


def codes_of(x: Tensor) -> Tensor:
    return x.to(E4M3).view(torch.uint8)


def casts() -> dict[str, Tensor]:
    """Every code's value; numbers of all sizes, every value, and every midpoint of two with its neighbours."""
    codes = torch.arange(256, dtype=torch.uint8)
    values = codes.view(E4M3).float()
    finite = values[values.isfinite()].sort().values
    middle = (finite[1:] + finite[:-1]) / 2
    beside = [middle.nextafter(torch.tensor(s * torch.inf)) for s in (-1, 1)]
    sizes = 2.0 ** torch.randint(-20, 14, (4096,), generator=GENERATOR)
    special = torch.tensor([448.0, 448.1, 463.9, 464.0, 464.1, 480.0, 1e4, 3e38, torch.inf, torch.nan, 1e-45, 1e-40, 0.0])
    x = torch.cat([torch.randn(4096, generator=GENERATOR) * sizes, finite, middle, *beside, special, -special])
    return {"values": values, "x_bits": x.view(torch.int32), "codes": codes_of(x)}


def power_of_two(scale: Tensor) -> Tensor:
    """2^ceil(log2 scale) without a logarithm: frexp gives scale = m 2^e with m in [1/2, 1)."""
    mantissa, exponent = torch.frexp(scale)
    return torch.ldexp(torch.ones_like(scale), exponent - (mantissa == 0.5).int())


def quantise(x: Tensor, rows: int, columns: int, floor: float, powers: bool) -> dict[str, Tensor]:
    """One scale per rows x columns tile of a matrix; an empty tile has scale 1 where there is no floor."""
    n, k = x.shape
    padded = torch.nn.functional.pad(x, (0, -k % columns, 0, -n % rows))
    tiles = padded.unflatten(0, (-1, rows)).unflatten(2, (-1, columns))  # [n, rows, k, columns]
    amax = tiles.abs().amax((1, 3), keepdim=True).clamp(min=floor)
    scale = torch.where(amax == 0, torch.ones_like(amax), amax / 448)
    if powers:
        scale = power_of_two(scale)
    codes = codes_of((tiles / scale).flatten(2, 3).flatten(0, 1)[:n, :k])
    return {"codes": codes, "scales": scale[:, 0, :, 0]}


def case(given: Tensor, rows: int, columns: int, floor: float) -> dict[str, Tensor]:
    x = given.float()
    both = {False: "plain", True: "power"}
    found = {name: quantise(x, rows, columns, floor, powers) for powers, name in both.items()}
    return {"x": given} | {f"{name}_{part}": t for name, parts in found.items() for part, t in parts.items()}


def wild(n: int, k: int) -> Tensor:
    """Rows of very different sizes; a row of zeros, of tiny numbers, of huge ones; an outlier; numbers near 448/2^n."""
    x = torch.randn(n, k, generator=GENERATOR) * 2.0 ** torch.randint(-30, 30, (n, 1), generator=GENERATOR)
    x[0], x[1], x[2] = 0, x[1] * 1e-20, x[2].sign() * 1e30
    x[3, k // 2] = 1e6
    x[4] = torch.linspace(-7.0000005, 7.0000005, k)
    return x


def weight(n: int, k: int) -> Tensor:
    """A weight of the size that models have, with one block of zeros and an outlier in the last."""
    w = torch.randn(n, k, generator=GENERATOR) * 0.02
    w[:TILE, :TILE] = 0
    w[-1, -1] = 11.5
    return w.bfloat16()


def main() -> None:
    files = {
        "casts": casts(),
        "tiles": case(wild(12, 320), 1, TILE, 1e-4),
        "columns": case(wild(192, 40), TILE, 1, 0.0),
        "weight_576": case(weight(576, 20), TILE, TILE, 0.0),
        "weight_192": case(weight(192, 130), TILE, TILE, 0.0),
        "weight_1": case(torch.tensor([[-0.7]]), TILE, TILE, 0.0),
    }
    FP8.mkdir(exist_ok=True)
    for name, tensors in files.items():
        save_file({key: t.contiguous() for key, t in tensors.items()}, FP8 / f"{name}.safetensors")
    (FP8 / "provenance.json").write_text(json.dumps(provenance("python make_fp8.py", SEED), indent=2) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
