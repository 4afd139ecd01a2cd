"""A small DeepSeek-V3 as a fair PyTorch user would write it for speed on a CPU: the peer that Minke is timed against.

Same mathematics and the same work per step as Minke's presets: MLA with low-rank queries, sigmoid routing with bias and
group limit, one shared expert, no token dropped, sequence-wise balance loss, one MTP module with shared embedding
and head. Where PyTorch offers several ways (`Choices`), the bench tries them and keeps the fastest.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Preset:
    vocab: int
    width: int
    layers: int
    heads: int
    nope: int
    rope: int
    value: int
    q_rank: int
    kv_rank: int
    experts: int
    top_k: int
    expert_width: int
    dense_width: int
    tokens: int
    """Tokens in a row."""
    rows: int
    dense_layers: int = 1
    mtp: bool = True
    groups: int = 4
    kept_groups: int = 2
    scale: float = 2.5


PRESETS = {
    "micro": Preset(2048, 128, 4, 4, 16, 8, 16, 48, 32, 8, 2, 96, 352, 128, 16),
    "nano": Preset(4096, 256, 6, 4, 32, 16, 32, 96, 64, 16, 4, 128, 704, 256, 8),
    "mini": Preset(8192, 512, 8, 8, 64, 32, 64, 192, 128, 32, 4, 192, 1408, 512, 4),
    # No experts, no MTP; a token multiplies with 124M parameters, as in GPT-2 124M.
    "dense-124m": Preset(50304, 768, 12, 12, 64, 32, 64, 384, 448, 0, 0, 0, 2048, 64, 4, dense_layers=12, mtp=False),
}


@dataclass(frozen=True)
class Choices:
    """Ways of doing the same work; every one gives the same result up to rounding."""

    experts: str = "loop"
    """loop: one matmul per expert over sorted tokens. grouped: torch's grouped matmul. batched: one batched matmul
    over equal, padded shares."""
    round_rows: int = 1
    """Pad each expert's rows to a multiple of this: oneDNN builds a new kernel (5 ms) for every new shape that it meets."""
    attention: str = "pad"
    """pad: values padded to the width of queries and keys, which PyTorch's tiled CPU attention demands. plain: not.
    f32: padded, and in f32 under autocast too, because the bf16 backward pass of that attention is slow."""
    loss: str = "linear"
    """linear: matmul, then cross-entropy. chunked: torch's own linear_cross_entropy."""


def linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=0.5 / inputs**0.5)
    return layer


class RmsNorm(nn.RMSNorm):
    """PyTorch has a fused kernel only where input and gain have one dtype, which autocast does not see to."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Interleaved pairs; x is [B, T, heads, d], cos and sin [T, 1, d/2]."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, p: Preset, how: Choices):
        super().__init__()
        self.p, self.how = p, how
        self.q_a, self.q_norm = linear(p.width, p.q_rank), RmsNorm(p.q_rank, eps=1e-6)
        self.q_b = linear(p.q_rank, p.heads * (p.nope + p.rope))
        self.kv_a, self.kv_norm = linear(p.width, p.kv_rank + p.rope), RmsNorm(p.kv_rank, eps=1e-6)
        self.kv_b = linear(p.kv_rank, p.heads * (p.nope + p.value))
        self.out = linear(p.heads * p.value, p.width)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        p = self.p
        q = self.q_b(self.q_norm(self.q_a(x))).unflatten(-1, (p.heads, -1))
        q_nope, q_rope = q.split((p.nope, p.rope), dim=-1)
        latent, k_rope = self.kv_a(x).split((p.kv_rank, p.rope), dim=-1)
        k_nope, v = self.kv_b(self.kv_norm(latent)).unflatten(-1, (p.heads, -1)).split((p.nope, p.value), dim=-1)
        q = torch.cat((q_nope, rotate(q_rope, cos, sin)), dim=-1)
        k_rope = rotate(k_rope.unsqueeze(2), cos, sin).expand(-1, -1, p.heads, -1)
        k = torch.cat((k_nope, k_rope.to(k_nope.dtype)), dim=-1)
        if self.how.attention != "plain":
            v = F.pad(v, (0, p.nope + p.rope - p.value))
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        if self.how.attention == "f32":
            with torch.autocast("cpu", enabled=False):
                heads = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=True)
        else:
            heads = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(heads.transpose(1, 2)[..., : p.value].flatten(-2))


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.gate_up, self.down = linear(width, 2 * hidden), linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class Moe(nn.Module):
    def __init__(self, p: Preset, how: Choices):
        super().__init__()
        self.p, self.how = p, how
        self.router = linear(p.width, p.experts)
        self.register_buffer("bias", torch.zeros(p.experts))
        self.register_buffer("counts", torch.zeros(p.experts))
        self.gate_up = nn.Parameter(torch.randn(p.experts, 2 * p.expert_width, p.width) * 0.5 / p.width**0.5)
        self.down = nn.Parameter(torch.randn(p.experts, p.width, p.expert_width) * 0.5 / p.expert_width**0.5)
        self.shared = Mlp(p.width, p.expert_width)

    def route(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        p = self.p
        with torch.autocast("cpu", enabled=False):
            scores = F.linear(x.float(), self.router.weight).sigmoid()
            choice = scores.detach() + self.bias
            group_scores = choice.view(-1, p.groups, p.experts // p.groups).topk(2, dim=-1).values.sum(-1)
            kept = torch.zeros_like(group_scores).scatter_(1, group_scores.topk(p.kept_groups).indices, 1.0)
            limited = choice.masked_fill(kept.repeat_interleave(p.experts // p.groups, 1) == 0, float("-inf"))
            chosen = limited.topk(p.top_k).indices
            weights = scores.gather(1, chosen)
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20) * p.scale
        return scores, chosen, weights

    def balance(self, scores: Tensor, rows: int) -> Tensor:
        """Sequence-wise balance loss, mean over sequences."""
        p = self.p
        hits = F.one_hot(scores.topk(p.top_k).indices.view(rows, -1), p.experts).float().mean(1) * p.experts
        shares = (scores / scores.sum(-1, keepdim=True)).view(rows, -1, p.experts).mean(1)
        return (hits * shares).sum(-1).mean()

    def experts(self, x: Tensor, counts: Tensor) -> Tensor:
        """x: rows sorted by expert, each expert's share of the length that `counts` says."""
        if self.how.experts == "batched":
            gate, up = torch.bmm(x.view(self.p.experts, -1, x.shape[-1]), self.gate_up.mT).chunk(2, dim=-1)
            return torch.bmm(F.silu(gate) * up, self.down.mT).flatten(0, 1)
        if self.how.experts == "grouped":
            dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
            offsets = counts.cumsum(0).to(torch.int32)
            gate, up = F.grouped_mm(x.to(dtype), self.gate_up.to(dtype).mT, offs=offsets).chunk(2, dim=-1)
            return F.grouped_mm(F.silu(gate) * up, self.down.to(dtype).mT, offs=offsets)
        out = []
        for rows, gate_up, down in zip(x.split(counts.tolist()), self.gate_up.unbind(), self.down.unbind(), strict=True):
            gate, up = F.linear(rows, gate_up).chunk(2, dim=-1)
            out.append(F.linear(F.silu(gate) * up, down))
        return torch.cat(out)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        flat = x.flatten(0, 1)
        scores, chosen, weights = self.route(flat)
        slots = chosen.flatten()
        order = slots.argsort(stable=True)
        counts = torch.zeros(self.p.experts, dtype=torch.long).scatter_add_(0, slots, torch.ones_like(slots))
        self.counts += counts
        rows = order // self.p.top_k
        x_sorted = flat.index_select(0, rows)
        unit = self.how.round_rows
        if unit == 1 and self.how.experts != "batched":
            y = self.experts(x_sorted, counts)
        else:
            padded = (counts + unit - 1) // unit * unit
            if self.how.experts == "batched":
                padded = padded.max().expand_as(padded)
            # Row i of expert e moves from (start of e) + i to (padded start of e) + i.
            shift = (padded.cumsum(0) - padded) - (counts.cumsum(0) - counts)
            place = torch.arange(len(slots)) + shift.repeat_interleave(counts, output_size=len(slots))
            # Grouped matmul takes a buffer of the greatest possible length: then no shape depends on data.
            total = len(slots) + self.p.experts * unit if self.how.experts == "grouped" else int(padded.sum())
            blank = x_sorted.new_zeros((total, x_sorted.shape[1]))
            y = self.experts(blank.index_copy(0, place, x_sorted), padded).index_select(0, place)
        y = y * weights.flatten().index_select(0, order).unsqueeze(1).to(y.dtype)
        routed = torch.zeros(flat.shape, dtype=y.dtype).index_add(0, rows, y)
        return routed.view_as(x) + self.shared(x), self.balance(scores, x.shape[0])

    @torch.no_grad()
    def update_bias(self, gamma: float) -> None:
        self.bias += gamma * torch.sign(self.counts.mean() - self.counts)
        self.counts.zero_()


class Layer(nn.Module):
    def __init__(self, p: Preset, how: Choices, dense: bool):
        super().__init__()
        self.attention_norm, self.attention = RmsNorm(p.width, eps=1e-6), Attention(p, how)
        self.ffn_norm, self.dense = RmsNorm(p.width, eps=1e-6), dense
        self.ffn = Mlp(p.width, p.dense_width) if dense else Moe(p, how)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        x = x + self.attention(self.attention_norm(x), cos, sin)
        if self.dense:
            return x + self.ffn(self.ffn_norm(x)), x.new_zeros((), dtype=torch.float32)
        y, balance = self.ffn(self.ffn_norm(x))
        return x + y, balance


class Transformer(nn.Module):
    def __init__(self, p: Preset, how: Choices):
        super().__init__()
        self.p, self.how = p, how
        self.embed = nn.Embedding(p.vocab, p.width)
        nn.init.normal_(self.embed.weight, std=0.5 / p.width**0.5)
        self.layers = nn.ModuleList(Layer(p, how, dense=i < p.dense_layers) for i in range(p.layers))
        self.norm, self.head = RmsNorm(p.width, eps=1e-6), linear(p.width, p.vocab)
        if p.mtp:
            self.mtp_enorm, self.mtp_hnorm = RmsNorm(p.width, eps=1e-6), RmsNorm(p.width, eps=1e-6)
            self.mtp_join, self.mtp_layer = linear(2 * p.width, p.width), Layer(p, how, dense=False)
            self.mtp_norm = RmsNorm(p.width, eps=1e-6)
        angles = torch.arange(p.tokens)[:, None] * 10000 ** (-torch.arange(0, p.rope, 2).double() / p.rope)
        self.register_buffer("cos", angles.cos().float().unsqueeze(1))
        self.register_buffer("sin", angles.sin().float().unsqueeze(1))

    def loss_of(self, hidden: Tensor, targets: Tensor) -> Tensor:
        hidden = hidden.flatten(0, 1)
        if self.how.loss == "chunked":
            return F.linear_cross_entropy(hidden, self.head.weight.to(hidden.dtype), targets.flatten())
        return F.cross_entropy(self.head(hidden).float(), targets.flatten())

    def forward(self, ids: Tensor, mtp_weight: float, balance_weight: float) -> Tensor:
        """ids: [B, T + 2]; the last two tokens are targets only."""
        t = self.p.tokens
        x = self.embed(ids[:, :t])
        balance = x.new_zeros((), dtype=torch.float32)
        for layer in self.layers:
            x, b = layer(x, self.cos, self.sin)
            balance = balance + b
        main = self.loss_of(self.norm(x), ids[:, 1 : t + 1])
        if not self.p.mtp:
            return main + balance_weight * balance
        joined = torch.cat((self.mtp_enorm(self.embed(ids[:, 1 : t + 1])), self.mtp_hnorm(x)), dim=-1)
        z, b = self.mtp_layer(self.mtp_join(joined), self.cos, self.sin)
        mtp = self.loss_of(self.mtp_norm(z), ids[:, 2 : t + 2])
        return main + mtp_weight * mtp + balance_weight * (balance + b)

    def blocks(self) -> list[Layer]:
        """Every layer, MTP's too."""
        return [*self.layers, *([self.mtp_layer] if self.p.mtp else [])]

    def routers(self) -> list[Moe]:
        return [m for m in self.modules() if isinstance(m, Moe)]
