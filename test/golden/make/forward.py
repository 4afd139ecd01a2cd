"""Runs the reference once and names everything it computed."""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
import transformers.models.deepseek_v3.modeling_deepseek_v3 as v3
from torch import Tensor, nn

from reference import WithMtp

IGNORED = -100


@dataclass
class Run:
    """One forward pass; tensors keep their graph, so that losses can be differentiated afterwards."""

    dumps: dict[str, Tensor] = field(default_factory=dict)
    losses: dict[str, Tensor] = field(default_factory=dict)
    margin: float = float("inf")
    """The smallest gap between a chosen and a rejected candidate of any router."""
    zero_fill_differs: int = 0
    """Tokens for which filling rejected groups with 0 would have chosen other experts."""
    hidden: list[Tensor] = field(default_factory=list)


class Recorder:
    """Collects inputs and outputs of modules, and the rotated parts that no module returns."""

    def __init__(self, root: nn.Module):
        self.seen: dict[nn.Module, tuple[Tensor, Any]] = {}
        self.rotated: list[tuple[Tensor, Tensor]] = []
        self.handles = [m.register_forward_hook(self.keep, with_kwargs=True) for m in root.modules()]

    def keep(self, module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        self.seen[module] = (args[0] if args else next(iter(kwargs.values()), None), output)

    def __enter__(self) -> "Recorder":
        self.rotate = v3.apply_rotary_pos_emb_interleave

        def rotate(*args: Tensor) -> tuple[Tensor, Tensor]:
            self.rotated.append(self.rotate(*args))
            return self.rotated[-1]

        v3.apply_rotary_pos_emb_interleave = rotate
        return self

    def __exit__(self, *_: object) -> None:
        v3.apply_rotary_pos_emb_interleave = self.rotate
        for handle in self.handles:
            handle.remove()


def rows(x: Tensor) -> Tensor:
    """[B, T, F] -> [B*T, F]: rows are packed one sequence after the other."""
    return x.reshape(-1, x.shape[-1])


def interleaved(x: Tensor) -> Tensor:
    """[B, heads, T, d] with the rotated pairs de-interleaved -> [B*T, heads*d] with pairs (0,1), (2,3), ..."""
    pairs = torch.stack(x.chunk(2, dim=-1), dim=-1).flatten(-2)
    return pairs.transpose(1, 2).reshape(-1, x.shape[1] * x.shape[-1])


def gap(values: Tensor, k: int) -> float:
    """The smallest distance between the k-th and the next candidate over all rows."""
    ordered = values.detach().sort(dim=-1, descending=True).values
    if k >= ordered.shape[-1]:
        return float("inf")
    distance = ordered[:, k - 1] - ordered[:, k]
    return float(distance[torch.isfinite(distance)].min()) if torch.isfinite(distance).any() else float("inf")


def router_dumps(gate: nn.Module, output: tuple[Tensor, Tensor, Tensor], sequences: int, run: Run) -> dict[str, Tensor]:
    """Recomputes the choice step by step, checks it against what the router returned, orders it by expert id."""
    logits, weights, chosen = output
    experts, groups, k = gate.num_experts, gate.num_group, gate.top_k
    scores = logits.sigmoid()
    choice = scores + gate.e_score_correction_bias
    group_scores = choice.view(-1, groups, experts // groups).topk(2).values.sum(-1)
    kept = torch.zeros_like(group_scores).scatter_(1, group_scores.topk(gate.topk_group).indices, 1.0)
    rejected = kept.repeat_interleave(experts // groups, dim=1) == 0
    limited = choice.masked_fill(rejected, float("-inf"))
    again = limited.topk(k).indices.sort(dim=-1).values
    ids, order = chosen.sort(dim=-1)
    assert torch.equal(ids, again), "the recomputed choice differs from the router's"
    expected = scores.gather(1, ids)
    if gate.norm_topk_prob:
        expected = expected / (expected.sum(-1, keepdim=True) + 1e-20)
    torch.testing.assert_close(weights.gather(1, order), expected * gate.routed_scaling_factor, rtol=1e-6, atol=1e-7)
    # The balance loss counts the unbiased choice, so that one must be clear as well.
    run.margin = min(run.margin, gap(limited, k), gap(group_scores, gate.topk_group), gap(scores, k))
    zero_filled = choice.masked_fill(rejected, 0.0).topk(k).indices.sort(dim=-1).values
    run.zero_fill_differs += int((zero_filled != ids).any(-1).sum())
    counts = torch.bincount(ids.flatten(), minlength=experts)
    shares = (scores / scores.sum(-1, keepdim=True)).view(sequences, -1, experts).mean(1)
    balance = {}
    for kind, index in (("unbiased", scores.topk(k).indices), ("routed", ids)):
        # f = E/(K T) x count: the mean over the T*K slots of a sequence, times E.
        f = experts * F.one_hot(index.view(sequences, -1), experts).to(scores.dtype).mean(1)
        balance[f"balance_{kind}"] = (f * shares).sum(-1).mean()
    bias, surplus = gate.e_score_correction_bias, torch.sign(counts.double().mean() - counts)
    return {
        "router_logits": logits, "router_scores": scores, "choice_scores": choice, "group_scores": group_scores,
        "topk_idx": ids, "topk_w": weights.gather(1, order), "tokens_per_expert": counts,
        "bias_next": bias + 0.001 * surplus, "bias_next_centred": bias + 0.001 * (surplus - surplus.mean()), **balance,
    }  # fmt: skip


def absorbed_attention(attention: nn.Module, q: Tensor, latent: Tensor, k_rot: Tensor, q_rot: Tensor, sequences: int) -> Tensor:
    """The decode form: scores against the latent itself, values folded in afterwards. -> [B*T, N*dv]"""
    n, dn, dv = attention.num_heads, attention.qk_nope_head_dim, attention.v_head_dim
    w = attention.kv_b_proj.weight.view(n, dn + dv, -1)
    tokens = latent.shape[0] // sequences
    q_nope = q.view(sequences, tokens, n, -1)[..., :dn]
    latent, k_rot = latent.view(sequences, tokens, -1), k_rot.view(sequences, tokens, -1)
    absorbed = torch.einsum("btnd,ndr->btnr", q_nope, w[:, :dn])
    scores = torch.einsum("btnr,bsr->bnts", absorbed, latent)
    scores = scores + torch.einsum("btnd,bsd->bnts", q_rot.view(sequences, tokens, n, -1), k_rot)
    future = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
    p = (scores * attention.scaling).masked_fill(future, float("-inf")).softmax(-1)
    return torch.einsum("bnts,bsr,ndr->btnd", p, latent, w[:, dn:]).reshape(sequences * tokens, n * dv)


def layer_dumps(layer: nn.Module, recorder: Recorder, rotated: tuple[Tensor, Tensor], sequences: int, run: Run) -> dict[str, Tensor]:
    def out(module: nn.Module) -> Tensor:
        return rows(recorder.seen[module][1])

    a, mlp = layer.self_attn, layer.mlp
    d = {"in_norm": out(layer.input_layernorm)}
    if a.q_lora_rank is not None:
        d |= {"q_a": out(a.q_a_proj), "q_a_ln": out(a.q_a_layernorm), "q": out(a.q_b_proj)}
    else:
        d["q"] = out(a.q_proj)
    d |= {"kv_a": out(a.kv_a_proj_with_mqa), "lat_ln": out(a.kv_a_layernorm), "kv_b": out(a.kv_b_proj)}
    d |= {"q_rot": interleaved(rotated[0]), "k_rot": interleaved(rotated[1])}
    d |= {"attn_ctx": rows(recorder.seen[a.o_proj][0]), "attn_out": out(a.o_proj)}
    d |= {"resid1": rows(recorder.seen[layer.post_attention_layernorm][0]), "post_norm": out(layer.post_attention_layernorm)}
    absorbed = absorbed_attention(a, d["q"], d["lat_ln"], d["k_rot"], d["q_rot"], sequences)
    torch.testing.assert_close(absorbed, d["attn_ctx"], rtol=1e-4, atol=1e-5)
    if isinstance(mlp, v3.DeepseekV3MoE):
        d |= router_dumps(mlp.gate, recorder.seen[mlp.gate][1], sequences, run)
        d |= {"routed_out": rows(recorder.seen[mlp.experts][1]), "shared_out": out(mlp.shared_experts)}
    d |= {"mlp_out": out(mlp), "layer_out": out(layer)}
    return d


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(rows(logits), targets.flatten(), ignore_index=IGNORED)


def shifted(labels: Tensor, by: int) -> Tensor:
    """The target of each position: the label `by` places later in the same sequence, or none."""
    return torch.cat([labels[:, by:], labels.new_full((labels.shape[0], by), IGNORED)], dim=1)


def run_main(model: WithMtp, ids: Tensor, labels: Tensor) -> Run:
    run, sequences = Run(), ids.shape[0]
    body = model.main.model
    with Recorder(model.main) as recorder:
        model.main(input_ids=ids, use_cache=False)
    d = run.dumps
    d["emb"] = rows(recorder.seen[body.embed_tokens][1])
    for i, layer in enumerate(body.layers):
        found = layer_dumps(layer, recorder, recorder.rotated[i], sequences, run)
        d |= {f"layers.{i}.{name}": value for name, value in found.items()}
    run.hidden = [recorder.seen[body.embed_tokens][1]] + [recorder.seen[layer][1] for layer in body.layers]
    cos, sin = recorder.seen[body.rotary_emb][1]
    d |= {"rope.inv_freq": body.rotary_emb.inv_freq, "rope.cos": cos[0].chunk(2, -1)[0], "rope.sin": sin[0].chunk(2, -1)[0]}
    d |= {"prenorm_out": rows(run.hidden[-1]), "final_norm": rows(recorder.seen[body.norm][1])}
    logits = recorder.seen[model.main.lm_head][1]
    targets = shifted(labels, 1)
    d |= {"logits": rows(logits), "logprobs": rows(logits).log_softmax(-1)}
    taken = d.pop("logprobs").gather(1, targets.flatten().clamp(min=0)[:, None])[:, 0]
    d["target_logprobs"] = torch.where(targets.flatten() == IGNORED, torch.zeros_like(taken), taken)
    run.losses["loss_mean"] = cross_entropy(logits, targets)
    for kind in ("unbiased", "routed"):
        each = [value for name, value in d.items() if name.endswith(f"balance_{kind}")]
        if each:
            run.losses[f"balance_{kind}"] = torch.stack(each).sum()
    return run


def run_mtp(model: WithMtp, main: Run, ids: Tensor, labels: Tensor, start: str, chain: str) -> Run:
    """Module k sees positions 0 .. T-1-k of each sequence and predicts the token k + 1 places ahead.

    `start` and `chain`, "post_norm" or "pre_norm": whether module 1 gets the main hidden state, and module
    k + 1 module k's, after or before the norm that stands before the shared head.
    """
    run, (sequences, tokens) = Run(margin=main.margin), ids.shape
    body, head = model.main.model, model.main.lm_head
    hidden = body.norm(main.hidden[-1]) if start == "post_norm" else main.hidden[-1]
    for k, module in enumerate(model.mtp, start=1):
        width = tokens - k
        positions = torch.arange(width)[None]
        with Recorder(module) as recorder:
            future = torch.full((width, width), torch.finfo(hidden.dtype).min, dtype=hidden.dtype).triu(1)[None, None]
            emb = body.embed_tokens(ids[:, k:])
            given = hidden[:, :width]
            o = module(emb, given, body.rotary_emb(given, positions), future, positions, None)
        seen = recorder.seen
        joined = torch.cat([seen[module.enorm][1], seen[module.hnorm][1]], dim=-1)
        torch.testing.assert_close(joined @ module.eh_proj.weight.T, seen[module.eh_proj][1], rtol=1e-5, atol=1e-6)
        block = seen[module.mtp_block][1]
        found = {"e": rows(seen[module.enorm][1]), "g": rows(seen[module.hnorm][1]), "z": rows(seen[module.eh_proj][1])}
        found |= layer_dumps(module.mtp_block, recorder, recorder.rotated[0], sequences, run)
        found |= {"o": rows(o), "logits": rows(head(o))}
        run.dumps |= {f"{k}.{name}": value for name, value in found.items()}
        run.losses[f"{k}.loss_mean"] = cross_entropy(head(o), shifted(labels, k + 1)[:, :width])
        hidden = o if chain == "post_norm" else block
    run.losses["combined"] = main.losses["loss_mean"] + 0.3 / len(model.mtp) * sum(run.losses.values())
    return run
