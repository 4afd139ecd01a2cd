"""Writes test/golden/<variant>/: a tiny model and what the reference implementation computes with it.

    .venv/bin/python make_models.py [VARIANT...]

Every golden value is computed in float64 and rounded to float32 once. The released float32 code path is run
beside it, must choose the same experts and stay within the project's tolerances, and its own distance from
the float64 values is written into the manifest.
"""

import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers.models.deepseek_v3.modeling_deepseek_v3 as v3
from safetensors.torch import save_file
from torch import Tensor

import published
from about import FILES, about
from forward import IGNORED, Run, run_main, run_mtp, shifted
from provenance import provenance
from reference import ROUTER_MARGIN, WithMtp, build, draw_weights, hf_name, per_expert, precision, published_weights
from variants import VARIANTS, Variant, config_of

GOLDEN = Path(__file__).resolve().parent.parent
CHAINS = [("post_norm", "post_norm"), ("pre_norm", "pre_norm"), ("post_norm", "pre_norm"), ("pre_norm", "post_norm")]
LEAN = ("q", "q_rot", "k_rot", "attn_out", "topk_idx", "topk_w", "tokens_per_expert", "routed_out", "mlp_out", "layer_out")
ADAMW = {"lr": 1e-2, "betas": (0.9, 0.95), "eps": 1e-8}


def margin_of(model: WithMtp, ids: Tensor) -> float:
    with torch.no_grad():
        main = run_main(model, ids, ids)
        runs = [run_mtp(model, main, ids, ids, *chain) for chain in CHAINS] if len(model.mtp) else []
    return min([main.margin, *(run.margin for run in runs)])


def draw_sequence(model: WithMtp, length: int, generator: torch.Generator) -> Tensor:
    """Token ids under which no router hesitates. Sequences do not see each other: each is drawn alone."""
    for _ in range(20_000):
        ids = torch.randint(model.main.config.vocab_size, (1, length), generator=generator)
        if margin_of(model, ids) > ROUTER_MARGIN:
            return ids
    raise RuntimeError("no sequence keeps its distance from router ties; take another seed")


def gradients_of(model: WithMtp, loss: Tensor) -> dict[str, Tensor]:
    """d loss / d parameter under published names; parameters that the loss does not reach get zeros."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    grads = {n: torch.zeros_like(p) if g is None else g for n, p, g in zip(names, parameters, found, strict=True)}
    return per_expert(grads, model.main.config.num_hidden_layers)


def norm_of(grads: dict[str, Tensor]) -> float:
    return float(torch.sqrt(sum(g.double().square().sum() for g in grads.values())))


def main_only(grads: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    mtp = tuple(f"model.layers.{layers + k}." for k in range(8))
    return {name: g for name, g in grads.items() if not name.startswith(mtp)}


def assert_decoding_agrees(model: WithMtp, ids: Tensor) -> None:
    """One token at a time over the compressed cache gives the logits of the whole sequence at once."""
    with torch.no_grad():
        whole = model.main(input_ids=ids, use_cache=False).logits
        cache, steps = None, []
        for t in range(ids.shape[1]):
            out = model.main(input_ids=ids[:, t : t + 1], past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            steps.append(out.logits)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, rtol=1e-5, atol=1e-5)


def greedy(model: WithMtp, prompt: Tensor, count: int) -> tuple[Tensor, float]:
    """The likeliest continuation, and how clearly it won at the closest step."""
    ids, clear = prompt, float("inf")
    for _ in range(count):
        with torch.no_grad():
            best = model.main(input_ids=ids, use_cache=False).logits[:, -1].topk(2)
        clear = min(clear, float(best.values[0, 0] - best.values[0, 1]))
        ids = torch.cat([ids, best.indices[:, :1]], dim=1)
    return ids, clear


def adamw_run(model: WithMtp, ids: Tensor, labels: Tensor, steps: int) -> tuple[dict[int, dict[str, Tensor]], list[dict[str, float]], float]:
    """Trains on main + 0.3 MTP: decay on tensors of two or more dimensions, clipping at norm 1."""
    layers, trained = model.main.config.num_hidden_layers, list(model.named_parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for _, p in trained if p.ndim >= 2], "weight_decay": 0.1},
            {"params": [p for _, p in trained if p.ndim < 2], "weight_decay": 0.0},
        ],
        **ADAMW,
    )
    after, log, margin = {}, [], float("inf")
    for step in range(1, steps + 1):
        main = run_main(model, ids, labels)
        mtp = run_mtp(model, main, ids, labels, "post_norm", "post_norm")
        margin = min(margin, mtp.margin, main.margin)
        optimizer.zero_grad()
        mtp.losses["combined"].backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        log.append({"step": step, "loss": float(mtp.losses["combined"]), "grad_norm": float(norm)})
        after[step] = per_expert({n: p.detach().clone() for n, p in trained}, layers)
    return after, log, margin


def relative(found: Tensor, golden: Tensor) -> float:
    scale = golden.double().norm()
    return float((found.double() - golden.double()).norm() / scale) if scale > 0 else float(found.double().norm())


def deviation(found: dict[str, Tensor], golden: dict[str, Tensor], bound: float, what: str) -> dict[str, Any]:
    """The worst tensor of the float32 run, which must itself lie within the project's tolerance."""
    assert found.keys() == golden.keys()
    worst, error = "", 0.0
    for name, value in golden.items():
        if not value.is_floating_point():
            assert torch.equal(found[name], value), f"{what} {name}: float32 and float64 choose differently"
        elif (e := relative(found[name], value)) > error:
            worst, error = name, e
    assert error <= bound, f"{what} {worst}: the reference's own float32 error is {error}"
    return {"relative_frobenius": float(f"{error:.3g}"), "tensor": worst}


def stored(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    def convert(t: Tensor) -> Tensor:
        t = t.detach().reshape(1) if t.ndim == 0 else t.detach()
        return (t.to(torch.float32) if t.is_floating_point() else t.to(torch.int32)).contiguous().clone()

    return {name: convert(tensor) for name, tensor in tensors.items()}


class Maker:
    """All that one variant needs, computed in one precision."""

    def __init__(self, variant: Variant, weights: dict[str, Tensor], sets: dict[str, Tensor], dtype: torch.dtype):
        self.variant, self.sets = variant, sets
        self.dumps: dict[str, Tensor] = {}
        self.files: dict[str, dict[str, Tensor]] = {}
        self.scalars: dict[str, Any] = {}
        with precision(dtype):
            self.model = build(config_of(variant), weights, dtype)
            self.layers = self.model.main.config.num_hidden_layers
            ids, labels = sets["input_ids"], sets["labels"]
            self.main = run_main(self.model, ids, labels)
            self.add_forward()
            self.mtp = {c: run_mtp(self.model, self.main, ids, labels, *c) for c in CHAINS} if len(self.model.mtp) else {}
            self.add_mtp()
            if variant.gradients:
                self.add_gradients()
            self.add_long()
            self.check_accumulation(ids, labels)
            assert_decoding_agrees(self.model, ids)
            hf_loss = self.model.main(input_ids=ids, labels=labels, use_cache=False).loss
            torch.testing.assert_close(hf_loss.double(), self.main.losses["loss_mean"].double(), rtol=1e-6, atol=0)

    def wanted(self, name: str) -> bool:
        return self.variant.detailed or not name.startswith("layers.") or name.split(".")[-1] in LEAN

    def add_forward(self) -> None:
        self.dumps |= {n: t for n, t in self.main.dumps.items() if self.wanted(n)}
        attention = self.model.main.model.layers[0].self_attn
        self.scalars |= {n: float(loss) for n, loss in self.main.losses.items()}
        self.scalars["attention_softmax_scale"] = attention.scaling
        self.scalars["rope_attention_scaling"] = self.model.main.model.rotary_emb.attention_scaling
        self.scalars["router_margin"] = self.main.margin
        self.scalars["tokens_that_zero_fill_would_send_elsewhere"] = self.main.zero_fill_differs

    def add_mtp(self) -> None:
        for (start, chain), run in self.mtp.items():
            if start == chain:
                kept = ("e", "g", "z", "topk_idx", "topk_w", "tokens_per_expert", "layer_out", "o", "logits")
                self.dumps |= {f"mtp.{start}.{n}": t for n, t in run.dumps.items() if n.split(".")[-1] in kept}
                self.scalars |= {f"mtp.{start}.{n}": float(loss) for n, loss in run.losses.items()}
            elif len(self.model.mtp) > 1:
                # Depth 2 can be chained another way than it starts: only its logits tell.
                self.dumps[f"mtp.{start}_then_{chain}.2.logits"] = run.dumps["2.logits"]

    def add_gradients(self) -> None:
        grads = gradients_of(self.model, self.main.losses["loss_mean"])
        if self.variant.detailed or not self.mtp:
            self.files["gradients.main"] = main_only(grads, self.layers)
        self.scalars["grad_norm.main"] = norm_of(grads)
        self.scalars["clip_factor.main"] = min(1.0, 1.0 / (norm_of(grads) + 1e-6))
        if self.variant.detailed:
            at = torch.autograd.grad(self.main.losses["loss_mean"], self.main.hidden, retain_graph=True)
            for name, g in zip(["emb", *(f"layers.{i}.layer_out" for i in range(self.layers))], at, strict=True):
                self.dumps[f"grad.{name}"] = g.reshape(-1, g.shape[-1])
            for kind in ("unbiased", "routed"):
                grads = gradients_of(self.model, self.main.losses[f"balance_{kind}"])
                self.scalars[f"grad_norm.balance_{kind}"] = norm_of(grads)
                small = {n: g for n, g in grads.items() if g.any() and ".experts." not in n and "mlp.gate_proj" not in n}
                self.files[f"gradients.balance_{kind}"] = small if kind == "unbiased" else {n: g for n, g in small.items() if n.endswith("gate.weight")}
        for (start, chain), run in self.mtp.items():
            if start == chain:
                grads = gradients_of(self.model, run.losses["combined"])
                self.scalars[f"grad_norm.combined_{start}"] = norm_of(grads)
                self.files[f"gradients.combined_{start}"] = grads if start == "post_norm" else self.touched_by_choice(grads)

    def touched_by_choice(self, grads: dict[str, Tensor]) -> dict[str, Tensor]:
        """What tells pre_norm from post_norm, without storing every parameter once more."""
        joint = tuple(f"model.layers.{self.layers + k}.{n}" for k in range(8) for n in ("hnorm", "eh_proj", "shared_head", "self_attn"))
        return {n: g for n, g in grads.items() if n.startswith((*joint, "model.norm", "model.layers.0.self_attn"))}

    def add_long(self) -> None:
        ids = self.sets["long.input_ids"]
        with torch.no_grad():
            run = run_main(self.model, ids, ids)
        self.dumps["long.logits"] = run.dumps["logits"]
        self.dumps |= {f"long.{n}": t for n, t in run.dumps.items() if n.endswith("topk_idx")}
        self.scalars["long.loss_mean"] = float(run.losses["loss_mean"])

    def check_accumulation(self, ids: Tensor, labels: Tensor) -> None:
        """Sequences one by one, weighted by their number of targets, give the gradient of the batch."""
        valid = (shifted(labels, 1) != IGNORED).sum(1).double()
        parts = [run_main(self.model, ids[b : b + 1], labels[b : b + 1]).losses["loss_mean"] for b in range(ids.shape[0])]
        total = sum(part * float(v / valid.sum()) for part, v in zip(parts, valid, strict=True))
        whole, summed = gradients_of(self.model, self.main.losses["loss_mean"]), gradients_of(self.model, total)
        for name, g in whole.items():
            torch.testing.assert_close(summed[name], g, rtol=1e-3, atol=1e-6)
            assert "e_score_correction_bias" not in name, "the router bias must not be trained"


def sample(variant: Variant) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights and inputs, all from the variant's seed."""
    with precision(torch.float64):
        model = build(config_of(variant), None, torch.float64)
        weights = draw_weights(model, variant.seed)
        model.load_state_dict(weights)
        generator = torch.Generator().manual_seed(variant.seed + 1000)
        count, length = variant.batch
        ids = torch.cat([draw_sequence(model, length, generator) for _ in range(count)])
        long = draw_sequence(model, variant.long, generator)
    labels = ids.clone()
    labels[:, 5], labels[0, 11] = IGNORED, IGNORED
    sets = {"input_ids": ids, "labels": labels, "targets": shifted(labels, 1), "long.input_ids": long}
    return weights, {**sets, "sequence_offsets": torch.arange(count + 1) * length}


def one_line_each(manifest: dict[str, Any]) -> str:
    """JSON with one line for every tensor."""
    text = json.dumps(manifest, indent=1)
    return re.sub(r"\{\s+(\"shape\": )\[([^]]*)\],\s+(.*?),\s+(.*?),\s+(.*?)\s+\}", lambda m: squeeze(m.group(0)), text, flags=re.S) + "\n"


def squeeze(text: str) -> str:
    return re.sub(r"\s*\n\s*", " ", text)


def write(directory: Path, variant: Variant, weights: dict[str, Tensor], sets: dict[str, Tensor], maker: Maker, notes: dict[str, Any]) -> None:
    directory.mkdir(exist_ok=True)
    config = config_of(variant)
    model_file = published_weights(weights, config["num_hidden_layers"], config["num_nextn_predict_layers"])
    save_file({n: t.contiguous().clone() for n, t in model_file.items()}, directory / "model.safetensors", {"format": "pt"})
    files = {"goldens": {**sets, **maker.dumps}, **maker.files}
    manifest: dict[str, Any] = {"variant": variant.name, "why": variant.why, "changes": variant.changes, **notes}
    manifest["scalars"], manifest["files"] = maker.scalars, {}
    for file, tensors in files.items():
        ready = stored(tensors)
        save_file(ready, directory / f"{file}.safetensors", {"format": "pt"})
        entry: dict[str, Any] = {"tensors": len(ready)}
        if file == "goldens":
            entry["tensors"] = {n: {"shape": list(t.shape), "dtype": "F32" if t.is_floating_point() else "I32", **about(n)} for n, t in ready.items()}
        else:
            entry |= {"about": FILES[file], "tolerance": "weights" if file.startswith("adamw") else "gradient"}
        manifest["files"][f"{file}.safetensors"] = entry
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (directory / "manifest.json").write_text(one_line_each(manifest))
    command = f"python make_models.py {variant.name}"
    (directory / "provenance.json").write_text(json.dumps(provenance(command, variant.seed), indent=2) + "\n")


def assert_loads(directory: Path, maker: Maker, ids: Tensor) -> None:
    """The files as written load into the released class, and compute the same there, bit for bit."""
    loaded = v3.DeepseekV3ForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
    )
    with torch.no_grad():
        got, expected = (m(input_ids=ids, use_cache=False).logits for m in (loaded, maker.model.main))
    assert torch.equal(got, expected), f"{directory}: the written checkpoint computes something else"


def make(variant: Variant) -> None:
    weights, sets = sample(variant)
    golden, single = (Maker(variant, weights, sets, dtype) for dtype in (torch.float64, torch.float32))
    notes: dict[str, Any] = {"precision": "computed in float64, stored as float32 (scalars here: float64)"}
    notes["float32_deviation"] = {
        "forward": deviation(single.dumps, golden.dumps, 1e-5, variant.name),
        **{file: deviation(single.files[file], golden.files[file], 1e-4, file) for file in golden.files},
    }
    if variant.detailed:
        assert golden.main.zero_fill_differs > 0, "layer 2 does not tell -inf from 0"
        add_training(variant, weights, sets, golden, notes)
        with precision(torch.float64):
            golden.dumps["greedy_ids"], clear = greedy(golden.model, sets["input_ids"][:1, :8], 16)
        assert clear > 1e-3, "greedy decoding is too close to a tie"
    directory = GOLDEN / variant.name
    write(directory, variant, weights, sets, golden, notes)
    assert_loads(directory, single, sets["input_ids"])
    size = sum(f.stat().st_size for f in directory.iterdir())
    print(f"{variant.name}: {size / 1024:.0f} KiB, router margin {golden.main.margin:.2g}, float32 deviation {notes['float32_deviation']}")


def add_training(variant: Variant, weights: dict[str, Tensor], sets: dict[str, Tensor], golden: Maker, notes: dict[str, Any]) -> None:
    runs = {}
    for dtype in (torch.float64, torch.float32):
        with precision(dtype):
            model = build(config_of(variant), weights, dtype)
            runs[dtype] = adamw_run(model, sets["input_ids"], sets["labels"], 3)
    after, log, margin = runs[torch.float64]
    assert margin > 1e-4, f"a router comes within {margin} of a tie while training"
    golden.scalars["adamw"] = log
    for step in (1, 3):
        file = f"adamw.step{step}"
        golden.files[file] = after[step]
        notes["float32_deviation"][file] = deviation(runs[torch.float32][0][step], after[step], 1e-4, file)


if __name__ == "__main__":
    published.check()
    started = datetime.now(UTC)
    chosen = sys.argv[1:]
    for one in VARIANTS:
        if not chosen or one.name in chosen:
            make(one)
    print(f"done in {(datetime.now(UTC) - started).total_seconds():.0f} s")
