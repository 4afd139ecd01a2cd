"""Writes test/golden/b01-fp8-written/: what transformers computes from a checkpoint that Minke wrote in FP8.

    node writtenCheckpoint.ts FOLDER             # Minke writes FOLDER/f32 and FOLDER/fp8
    .venv/bin/python make_fp8_written.py FOLDER

FOLDER/fp8 is dequantised by fp8_weights.py as a user would do it, and loaded by the released class's own loader with the
config.json that Minke wrote. What it computes is held to the checkpoint's bytes by their hashes; the files are not kept.
"""

import hashlib
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
import transformers.models.deepseek_v3.modeling_deepseek_v3 as v3
from safetensors.torch import save_file
from torch import Tensor

import fp8_weights as fp8
from make_fp8_model import MARGIN, choices_and_logits, hashes, run
from make_models import GOLDEN, relative, stored
from provenance import provenance
from reference import WithMtp, build, precision

NAME = "b01-fp8-written"
SEED = 201
COMMAND = "node writtenCheckpoint.ts FOLDER; python make_fp8_written.py FOLDER"
SHAPE = (2, 16)
"""[sequences, tokens]"""


def released(folder: Path) -> v3.DeepseekV3ForCausalLM:
    """Through transformers' own loader, in float32: every weight is found, only those of the MTP module are left over."""
    loaded, report = v3.DeepseekV3ForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager", output_loading_info=True
    )
    layers = loaded.config.num_hidden_layers
    assert not report["missing_keys"] and not report["mismatched_keys"], report
    assert all(re.match(rf"model\.layers\.{layers}\.", name) for name in report["unexpected_keys"]), report
    return loaded


def in_float64(loaded: v3.DeepseekV3ForCausalLM, folder: Path) -> WithMtp:
    with precision(torch.float64):
        model = build(json.loads((folder / "config.json").read_text()), None, torch.float64)
    model.main.load_state_dict(loaded.state_dict())
    return model


def draw_ids(exact: WithMtp, others: list[WithMtp]) -> Tensor:
    """Sequences in which no router hesitates, so that neither rounded weights nor rounded inputs change the choice."""
    generator = torch.Generator().manual_seed(SEED)
    found: list[Tensor] = []
    for _ in range(20_000):
        ids = torch.randint(exact.main.config.vocab_size, (1, SHAPE[1]), generator=generator)
        if min(run(model, ids, ids).margin for model in (exact, *others)) < MARGIN:
            continue
        plain = choices_and_logits(exact, ids, False)[0]
        rounded = [choices_and_logits(exact, ids, True)[0], *(choices_and_logits(model, ids, False)[0] for model in others)]
        if all(torch.equal(a, b) for other in rounded for a, b in zip(plain, other, strict=True)):
            found.append(ids)
            if len(found) == SHAPE[0]:
                return torch.cat(found)
    raise RuntimeError("no sequence keeps its distance from router ties; take another seed")


def file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def float32_error(loaded: v3.DeepseekV3ForCausalLM, ids: Tensor, exact: Tensor) -> float:
    with torch.no_grad():
        logits = loaded(input_ids=ids, use_cache=False).logits
    error = relative(logits.reshape(exact.shape), exact)
    assert error < 1e-5, f"the released class's own float32 error is {error}"
    return error


def main(source: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        dequantised = Path(temporary) / "dequantised"
        fp8.main(source / "fp8", dequantised)
        loaded = released(dequantised)
        exact = in_float64(loaded, dequantised)
    unquantised = in_float64(released(source / "f32"), source / "f32")
    ids = draw_ids(exact, [unquantised])
    golden = run(exact, ids, ids)
    dumps = {
        "input_ids": ids,
        **{name: t for name, t in golden.dumps.items() if name == "logits" or name.endswith("topk_idx")},
        "unquantised.logits": run(unquantised, ids, ids).dumps["logits"],
        "fp8_inputs.logits": choices_and_logits(exact, ids, True)[1],
    }
    manifest: dict[str, Any] = {
        "variant": NAME,
        "why": "a checkpoint that Minke wrote in FP8, dequantised by fp8_weights.py and loaded by transformers",
        "precision": "computed in float64, stored as float32",
        "scalars": {
            "router_margin": golden.margin,
            "float32.logits_error": float32_error(loaded, ids, golden.dumps["logits"]),
            **{f"{name}_error": relative(dumps[name], dumps["logits"]) for name in ("unquantised.logits", "fp8_inputs.logits")},
        },
        "sha256": {
            "fp8/model.safetensors": file_sha256(source / "fp8" / "model.safetensors"),
            "f32/model.safetensors": file_sha256(source / "f32" / "model.safetensors"),
            "fp8": hashes(fp8.read(source / "fp8")),
        },
    }
    folder = GOLDEN / NAME
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copy(source / "fp8" / "config.json", folder)
    save_file(stored(dumps), folder / "goldens.safetensors", {"format": "pt"})
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    (folder / "provenance.json").write_text(json.dumps(provenance(COMMAND, SEED), indent=2) + "\n")
    print(json.dumps(manifest["scalars"], indent=1))


if __name__ == "__main__":
    # It would list the MTP module's weights, which are asserted to be all that is left over.
    transformers.logging.set_verbosity_error()
    main(Path(sys.argv[1]))
