#!/usr/bin/env bash
# Installs the package into its own environment and runs lint, formatting and tests.
#
#   scripts/test.sh [pytest arguments]      for example: scripts/test.sh -k association
#   scripts/test.sh -m slow                 the tests that a fast suite leaves out
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

use_environment test -e "${root}[test]"
cd "$root"
"$environment/bin/ruff" check .
"$environment/bin/ruff" format --check .
# Two processes of one thread each: tests are many and small, and TensorFlow's own threads would only get in the way.
export OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1
# A process that dies (out of memory, say) ends the run with a failure that names its test: pytest-xdist would put another
# in its place, and with --dist loadfile wait for ever for the tests of the dead one.
exec "$environment/bin/python" -m pytest -q -n 2 --dist loadfile --max-worker-restart 0 --durations 10 "$@"
