"""Times a training step of a small DeepSeek-V3 in PyTorch.

    python torch_v3.py --preset nano --precision bf16 --compile --steps 10     one JSON line per step
    python torch_v3.py --preset nano --precision bf16 --serve                  obeys lines on standard input

With --serve it prints {"ready": true, ...} once it is warm, then answers each line "step N" with one line
{"seconds", "tokens", "loss", "peakRssBytes"} after N steps, and leaves at "quit" or at the end of its input: so another program can
time its own steps and these in turns, under the same disturbances.
"""

import argparse
import os
import time
from typing import Any

from fair import peak_rss_bytes, restart_with, say, serve


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=["micro", "nano", "mini", "dense-124m"], default="nano")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32", help="bf16: autocast over float32 weights")
    parser.add_argument("--compile", action="store_true", help="torch.compile instead of eager")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--experts", choices=["loop", "grouped", "batched"], default="grouped")
    parser.add_argument("--round-rows", type=int, help="pad each expert's rows to a multiple of this; 64 for bf16, 1 for f32")
    parser.add_argument("--attention", choices=["pad", "plain", "f32"], default="f32")
    parser.add_argument("--loss", choices=["linear", "chunked"], default="linear")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--profile", action="store_true", help="print where the time goes instead")
    args = parser.parse_args()
    if args.round_rows is None:
        # Only oneDNN, which multiplies in bf16, builds a kernel for every new shape.
        args.round_rows = 64 if args.precision == "bf16" else 1
    return args


class Trainer:
    """One model, its optimizer, and random tokens."""

    def __init__(self, args: argparse.Namespace):
        import torch
        from torch_model import PRESETS, Choices, Transformer

        torch.set_num_threads(args.threads)
        torch.manual_seed(0)
        self.torch, self.p = torch, PRESETS[args.preset]
        self.model = Transformer(self.p, Choices(args.experts, args.round_rows, args.attention, args.loss))
        self.autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.precision == "bf16")
        trained = list(self.model.parameters())
        groups = [
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": 0.1},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=2e-3, betas=(0.9, 0.95), eps=1e-8, fused=True)
        if args.compile:
            # By region: all layers of a kind share one compiled graph, which takes minutes less and runs as fast.
            for layer in self.model.blocks():
                layer.compile()
            self.model.loss_of = torch.compile(self.model.loss_of)
        self.rows = self.p.rows
        self.batches = [torch.randint(self.p.vocab, (self.rows, self.p.tokens + 2)) for _ in range(8)]
        self.done = 0

    def step(self) -> float:
        with self.autocast:
            loss = self.model(self.batches[self.done % len(self.batches)], 0.3, 1e-4)
        loss.backward()
        self.torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        for router in self.model.routers():
            router.update_bias(0.001)
        self.done += 1
        return loss.item()

    def timed(self, steps: int) -> dict[str, Any]:
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(steps):
            loss = self.step()
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
        tokens = steps * self.rows * self.p.tokens
        return {"seconds": seconds, "cpu_seconds": cpu_seconds, "tokens": tokens, "loss": loss, "peakRssBytes": peak_rss_bytes()}


def setting_text(args: argparse.Namespace, torch: Any) -> str:
    """In one line: which ways of doing the work were chosen, and the threads of each part."""
    ways = f"experts {args.experts} in shares of {args.round_rows} rows, attention {args.attention}, loss {args.loss}"
    return f"{ways}; OpenMP threads {torch.get_num_threads()}, interop {torch.get_num_interop_threads()}"


def direct(trainer: Trainer, steps: int, settings: dict[str, Any]) -> None:
    best, least = 0.0, float("inf")
    for _ in range(steps):
        record = trainer.timed(1)
        best, least = max(best, record["tokens"] / record["seconds"]), min(least, record["cpu_seconds"])
        say(record)
    say({"best_tokens_per_second": round(best), "least_cpu_seconds": round(least, 4), **settings})


def main() -> None:
    args = arguments()
    restart_with(args.threads)
    trainer = Trainer(args)
    settings = {k: getattr(args, k) for k in ("preset", "precision", "compile", "threads", "experts", "round_rows", "attention", "loss")}
    settings |= {"torch": trainer.torch.__version__, "parameters": sum(p.numel() for p in trainer.model.parameters())}
    # What the program really runs with, not what it was asked for.
    settings |= {"threads": trainer.torch.get_num_threads(), "setting": setting_text(args, trainer.torch)}
    trainer.timed(args.warmup)
    if args.profile:
        with trainer.torch.profiler.profile() as profile:
            trainer.timed(3)
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=25))
    elif args.serve:
        serve(trainer.timed, settings)
    else:
        direct(trainer, args.steps, settings)


if __name__ == "__main__":
    main()
