#!/usr/bin/env bash
# Lowers the training step, the evaluation and the inference of every published config for TPUs, on a machine without one:
# about 30 minutes on 2 cores after installation (2 GB). Exits with 1 if one of them does not lower. See docs/tpu.md.
#
#   scripts/lower_for_tpu.sh [--json FILE] [--config_file FILE ...] [--programs train_step] [--precisions bfloat16]
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
bash "$here/install_tpu.sh"
# The same is set in the program; here as well, because the interpreter's own start-up may import TensorFlow.
export TPU_LIBRARY_PATH=/dev/null TPU_SKIP_MDS_QUERY=1 GCE_METADATA_IP=127.0.0.1:9
exec "$here/../.venv-tpu/bin/python" "$here/lower_for_tpu.py" "$@"
