#!/usr/bin/env bash
# Installs this source tree with tensorflow-tpu into .venv-tpu beside it: on a TPU machine, or anywhere to lower for one.
#
#   scripts/install_tpu.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

# A TPU needs tensorflow-tpu instead of tensorflow, so the package comes without its dependencies, and these by hand.
use_environment tpu -c "$root/constraints-tpu.txt" tensorflow-tpu libtpu keras keras-cv tensorboard numpy pillow protobuf \
  scipy absl-py tensorflow-datasets importlib_resources ml_dtypes tqdm zstandard
"$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps "$root"
