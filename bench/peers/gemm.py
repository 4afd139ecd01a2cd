"""Times PyTorch's matmul alone.

    python gemm.py --precision bf16 --threads 1 [M N K]     one JSON line: best wall and CPU time of many
    python gemm.py --precision bf16 --serve                 obeys "step N" and "quit" as torch_v3.py does
"""

import argparse
import json
import os
import resource
import sys
import time

import torch


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("sizes", type=int, nargs="*", metavar="M N K")
    args = parser.parse_args()
    if len(args.sizes) not in (0, 3):
        parser.error("sizes are three: M N K")
    return args


def best_of(x: torch.Tensor, w: torch.Tensor, seconds: float) -> tuple[float, float]:
    """Least wall time and least CPU time; on a busy machine with one thread the second is the honest one."""
    wall, cpu, end = float("inf"), float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start, start_cpu = time.perf_counter(), time.process_time()
        torch.mm(x, w)
        wall, cpu = min(wall, time.perf_counter() - start), min(cpu, time.process_time() - start_cpu)
    return wall, cpu


def say(record: dict[str, object]) -> None:
    print(json.dumps(record), flush=True)


def serve(x: torch.Tensor, w: torch.Tensor, settings: dict[str, object]) -> None:
    best_of(x, w, 0.5)
    say({"ready": True, **settings})
    for line in sys.stdin:
        word, *rest = line.split() or ["quit"]
        if word == "quit":
            return
        if word != "step" or len(rest) != 1 or not rest[0].isdigit() or int(rest[0]) < 1:
            say({"error": f"cannot read {line.strip()!r}: say 'step N' or 'quit'"})
            continue
        start = time.perf_counter()
        for _ in range(int(rest[0])):
            torch.mm(x, w)
        seconds = time.perf_counter() - start
        say({"seconds": seconds, "peakRssBytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024})


def main() -> None:
    args = arguments()
    m, n, k = args.sizes or (2048, 2048, 1024)
    torch.set_num_threads(args.threads)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[args.precision]
    x, w = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype)
    settings = {"precision": args.precision, "threads": torch.get_num_threads(), "torch": torch.__version__, "m": m, "n": n, "k": k}
    if args.serve:
        serve(x, w, settings)
        return
    wall, cpu = (2 * m * n * k / t / 1e9 for t in best_of(x, w, 5.0))
    say({**settings, "gflops": round(wall, 1), "gflops_per_cpu_second": round(cpu, 1)})


if __name__ == "__main__":
    main()
