#!/usr/bin/env bash
# Makes the throw-away Python environment that writes the golden tensors. Usage: ./setup.sh [VENV_DIRECTORY]
#
# Torch is installed without its dependencies, because they are 3 GB of CUDA libraries; cpu_only_torch.py
# then makes it import without them. Everything else that it needs is listed in requirements-torch.txt.
set -euo pipefail
cd "$(dirname "$0")"
venv=${1:-.venv}
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --requirement requirements-torch.txt
"$venv/bin/pip" install --quiet --no-deps torch==2.15.0
python3 cpu_only_torch.py "$venv"
if [ "${MINKE_TORCH_ONLY:-0}" != 1 ]; then
  "$venv/bin/pip" install --quiet --requirement requirements.txt
fi
"$venv/bin/python" -c "import torch; assert not torch.cuda.is_available(); print('torch', torch.__version__, 'is ready in $venv')"
