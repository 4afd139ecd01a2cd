"""What every PyTorch program of this folder runs with, so that none is slow for want of a setting.

OpenMP, MKL, oneDNN and malloc read the environment once, when they are loaded: `restart_with` must come before the
first `import torch`, and starts the program anew where a value differs.
"""

import atexit
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable

# glibc returns large blocks to the system at every free, and faults them in again page by page at the next use.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(1 << 32), "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(1 << 28)}

# The default of 1,024 kernels is fewer than the shapes that experts' ragged shares have.
ONEDNN = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "20000"}

FOLDER = "minke-inductor-"


def restart_with(threads: int) -> None:
    """Goes on only in a process whose environment has everything; the process id stays the same."""
    if "torch" in sys.modules:
        raise RuntimeError("torch is loaded already, and with it OpenMP: call restart_with before the first import torch")
    wanted = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), **MALLOC, **ONEDNN}
    compile_into_a_folder_of_its_own()
    if any(os.environ.get(k) != v for k, v in wanted.items()):
        os.environ.update(wanted)
        os.execv(sys.executable, [sys.executable, *sys.argv])


def compile_into_a_folder_of_its_own() -> None:
    """Kernels that another program was stopped in the middle of writing would be loaded, and fail."""
    # Set before the program is started anew, which then finds it.
    folder = os.environ.get("TORCHINDUCTOR_CACHE_DIR") or tempfile.mkdtemp(prefix=FOLDER)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
    if not os.path.basename(folder).startswith(FOLDER):
        return  # chosen by whoever started this program

    def remove() -> None:
        # Being asked to leave once more must not break this off.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        shutil.rmtree(folder, ignore_errors=True)

    # A program that is asked to leave ends as others do, so that what was registered for the end runs.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    atexit.register(remove)


def peak_rss_bytes() -> int:
    """Largest resident set so far; Linux counts in KiB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def say(record: dict[str, object]) -> None:
    print(json.dumps(record), flush=True)


def serve(step: Callable[[int], dict[str, object]], settings: dict[str, object]) -> None:
    """Obeys lines on standard input: "step N" is answered by what `step(N)` returns, "quit" ends."""
    say({"ready": True, **settings})
    for line in sys.stdin:
        word, *rest = line.split() or ["quit"]
        if word == "quit":
            return
        if word != "step" or len(rest) != 1 or not rest[0].isdigit() or int(rest[0]) < 1:
            say({"error": f"cannot read {line.strip()!r}: say 'step N' or 'quit'"})
            continue
        say(step(int(rest[0])))
