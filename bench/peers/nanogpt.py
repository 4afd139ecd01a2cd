"""nanoGPT's recipe for Shakespeare's characters on a CPU, written anew: model, optimizer, schedule, one evaluation.

    python nanogpt.py tinyshakespeare.txt [--seed 0] [--iterations 2000] [--threads N]

The sizes and settings are those of the README of nanoGPT (github.com/karpathy/nanoGPT, "I only have a macbook"): 4
layers, 4 heads, width 128, context 64, batch 12, 2,000 iterations, learning rate 1e-3 falling to 1e-4 on a cosine
after 100 of warm-up, beta2 0.99, decay 0.1 on matrices, clip 1, no dropout, no biases, head tied to the embedding.
It evaluates once, at the end, over the whole held-out tenth: non-overlapping windows, each character once. Prints one
line of JSON; "seconds" runs from the start of the process that computes (see fair.py).
"""

import time

STARTED = time.time()

import argparse  # noqa: E402  (the clock starts first)
import json  # noqa: E402
import math  # noqa: E402
import os  # noqa: E402

from fair import restart_with  # noqa: E402


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    return parser.parse_args()


# Here and not in main(): the classes below need torch, and the environment must stand before torch is loaded.
ARGS = arguments()
restart_with(ARGS.threads)

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

LAYERS, HEADS, WIDTH, CONTEXT, BATCH = 4, 4, 128, 64, 12
RATE, LAST_RATE, WARMUP = 1e-3, 1e-4, 100


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm_attention, self.norm_mlp = nn.LayerNorm(WIDTH, bias=False), nn.LayerNorm(WIDTH, bias=False)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        B, T, D = x.shape
        q, k, v = (
            part.view(B, T, HEADS, D // HEADS).transpose(1, 2) for part in self.qkv(self.norm_attention(x)).split(D, dim=2)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(B, T, D))
        return x + self.down(F.gelu(self.up(self.norm_mlp(x))))


class Gpt(nn.Module):
    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH, bias=False)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                deep = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * LAYERS) if deep else 0.02)

    def loss(self, x: torch.Tensor, y: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
        h = self.tokens(x) + self.positions.weight[: x.shape[1]]
        for layer in self.layers:
            h = layer(h)
        logits = F.linear(self.norm(h), self.tokens.weight)
        return F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction=reduction)


def rate_at(step: int, steps: int) -> float:
    if step < WARMUP:
        return RATE * (step + 1) / (WARMUP + 1)
    turned = (step - WARMUP) / max(1, steps - WARMUP)
    return LAST_RATE + 0.5 * (1 + math.cos(math.pi * turned)) * (RATE - LAST_RATE)


@torch.no_grad()
def evaluate(model: Gpt, held: torch.Tensor) -> float:
    """Nats per character; the first character of the split, which nothing precedes, is not predicted."""
    count = (len(held) - 1) // CONTEXT
    x, y = (held[i : i + count * CONTEXT].view(count, CONTEXT) for i in (0, 1))
    total = sum(model.loss(a, b, "sum").item() for a, b in zip(x.split(256), y.split(256), strict=True))
    rest = held[count * CONTEXT :]
    if len(rest) > 1:
        total += model.loss(rest[None, :-1], rest[None, 1:], "sum").item()
    return total / (len(held) - 1)


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    torch.manual_seed(1337 + args.seed)

    with open(args.text, "rb") as file:
        text = file.read()
    known = {byte: i for i, byte in enumerate(sorted(set(text)))}
    ids = torch.tensor([known[byte] for byte in text])
    train, held = ids[: len(ids) * 9 // 10], ids[len(ids) * 9 // 10 :]

    model = Gpt(len(known))
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    gains = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": gains, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.99), fused=True)
    for step in range(args.iterations):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, args.iterations)
        starts = torch.randint(len(train) - CONTEXT, (BATCH,))
        rows = torch.stack([train[i : i + CONTEXT + 1] for i in starts])
        model.loss(rows[:, :-1], rows[:, 1:]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    loss = evaluate(model, held)
    record = {"loss": loss, "seconds": time.time() - STARTED, "processorSeconds": time.process_time(), "iterations": args.iterations, "torch": torch.__version__}
    print(json.dumps({**record, "parameters": sum(p.numel() for p in model.parameters()), "threads": args.threads}))


if __name__ == "__main__":
    main(ARGS)
