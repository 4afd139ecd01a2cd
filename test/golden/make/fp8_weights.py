"""Weights in FP8 as the released checkpoints have them, in plain PyTorch: F8_E4M3 codes and one scale per 128 x 128 block.

    .venv/bin/python fp8_weights.py FOLDER FOLDER_OUT

reads a checkpoint in Hugging Face layout and writes it with its FP8 weights dequantised to float32, so that transformers
can load it, whatever its shapes are (transformers' own reader takes matrices of whole blocks only).
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

BLOCK = 128
LARGEST = 448.0
SCALE = "_scale_inv"


def power_of_two_ceil(x: Tensor) -> Tensor:
    """The least power of two that is not below x > 0, from the bits: a logarithm would round."""
    bits = x.view(torch.int32)
    return (((bits >> 23) + ((bits & 0x7FFFFF) != 0).int()) << 23).view(torch.float32)


def spread(scales: Tensor, shape: torch.Size) -> Tensor:
    """One scale per block -> one per element; the last blocks may be short."""
    return scales.repeat_interleave(BLOCK, 0)[: shape[0]].repeat_interleave(BLOCK, 1)[:, : shape[1]]


def quantise(weight: Tensor, power_of_two: bool) -> tuple[Tensor, Tensor]:
    """Codes and scales: amax / 448 over what a block holds, 1 where it holds zeros only; q = cast(x / scale)."""
    rows, columns = weight.shape
    padded = torch.zeros(-(-rows // BLOCK) * BLOCK, -(-columns // BLOCK) * BLOCK)
    padded[:rows, :columns] = weight
    amax = padded.abs().view(-1, BLOCK, padded.shape[1] // BLOCK, BLOCK).amax(dim=(1, 3))
    scales = amax / LARGEST
    if power_of_two:
        scales = power_of_two_ceil(scales)
    scales = torch.where(amax == 0, 1.0, scales)
    return (weight / spread(scales, weight.shape)).to(torch.float8_e4m3fn), scales


def dequantise(codes: Tensor, scales: Tensor) -> Tensor:
    return codes.float() * spread(scales.float(), codes.shape)


def read(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint, from one file or from shards."""
    index = folder / "model.safetensors.index.json"
    files = set(json.loads(index.read_text())["weight_map"].values()) if index.exists() else {"model.safetensors"}
    tensors: dict[str, Tensor] = {}
    for file in sorted(files):
        with safe_open(folder / file, "pt") as opened:
            tensors |= {name: opened.get_tensor(name) for name in opened.keys()}
    return tensors


def dequantised(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same model without FP8: codes times scales in float32, all else as it is."""
    out = {}
    for name, tensor in tensors.items():
        if tensor.dtype == torch.float8_e4m3fn:
            out[name] = dequantise(tensor, tensors[name + SCALE])
        elif not name.endswith(SCALE):
            out[name] = tensor
    return out


def without_quantisation(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != "quantization_config"}


def main(source: Path, target: Path) -> None:
    target.mkdir()
    save_file(dequantised(read(source)), target / "model.safetensors", {"format": "pt"})
    config = without_quantisation(json.loads((source / "config.json").read_text()))
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for file in source.glob("*token*"):
        shutil.copy(file, target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
