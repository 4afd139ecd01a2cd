"""Times PyTorch's matmul alone: one JSON line for each precision, best of many.

    python gemm.py [THREADS] [M N K]
"""

import json
import sys
import time

import torch


def best_of(x: torch.Tensor, w: torch.Tensor, seconds: float) -> float:
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        torch.mm(x, w)
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    m, n, k = (int(a) for a in sys.argv[2:5]) if len(sys.argv) > 4 else (2048, 2048, 1024)
    torch.set_num_threads(threads)
    for dtype in (torch.float32, torch.bfloat16):
        x, w = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype)
        rate = 2 * m * n * k / best_of(x, w, 5.0) / 1e9
        print(json.dumps({"dtype": str(dtype), "m": m, "n": n, "k": k, "threads": threads, "gflops": round(rate, 1)}), flush=True)


if __name__ == "__main__":
    main()
