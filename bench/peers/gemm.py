"""Times PyTorch's matmul alone: one JSON line for each precision, best of many.

    python gemm.py [THREADS] [M N K]
"""

import json
import sys
import time

import torch


def best_of(x: torch.Tensor, w: torch.Tensor, seconds: float) -> tuple[float, float]:
    """Least wall time and least CPU time; on a busy machine with one thread the second is the honest one."""
    wall, cpu, end = float("inf"), float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start, start_cpu = time.perf_counter(), time.process_time()
        torch.mm(x, w)
        wall, cpu = min(wall, time.perf_counter() - start), min(cpu, time.process_time() - start_cpu)
    return wall, cpu


def main() -> None:
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    m, n, k = (int(a) for a in sys.argv[2:5]) if len(sys.argv) > 4 else (2048, 2048, 1024)
    torch.set_num_threads(threads)
    for dtype in (torch.float32, torch.bfloat16):
        x, w = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype)
        wall, cpu = (2 * m * n * k / t / 1e9 for t in best_of(x, w, 5.0))
        record = {"dtype": str(dtype), "m": m, "n": n, "k": k, "threads": threads}
        print(json.dumps({**record, "gflops": round(wall, 1), "gflops_per_cpu_second": round(cpu, 1)}), flush=True)


if __name__ == "__main__":
    main()
