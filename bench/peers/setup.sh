#!/usr/bin/env bash
# Makes bench/peers/.venv with the PyTorch that Minke is timed against. The golden tensors' set-up does the work.
set -euo pipefail
cd "$(dirname "$0")"
MINKE_TORCH_ONLY=1 ../../test/golden/make/setup.sh "$PWD/.venv"
