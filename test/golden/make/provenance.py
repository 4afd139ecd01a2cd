"""Which programs, on what, wrote a golden file."""

import platform
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch


def provenance(command: str, seed: int) -> dict[str, Any]:
    return {
        "tools": {name: version(name) for name in ("torch", "transformers", "safetensors", "numpy")},
        "python": platform.python_version(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "command": command,
        "seed": seed,
        "date": datetime.now(UTC).date().isoformat(),
    }
