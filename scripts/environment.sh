# Sourced by the other scripts: finds Python 3.11 and keeps one virtual environment per purpose inside the source tree.
# shellcheck shell=bash

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

# Nothing below may ask the network for a cloud's metadata server.
export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-2}"
export GCE_METADATA_IP="${GCE_METADATA_IP:-127.0.0.1:9}" NO_GCE_CHECK="${NO_GCE_CHECK:-true}"

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.11 python3 python; do
    if [ -n "$candidate" ] && type -P "$candidate" >/dev/null 2>&1 &&
      command "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "Python 3.11 was not found; install it, or name it: PYTHON=/path/to/python3.11 $0" >&2
  return 1
}

# use_environment NAME PIP_ARGUMENT...: makes $root/.venv-NAME if it is missing, installs into it, and lets `python` mean
# its interpreter. Not `activate`: the folder may have been moved, and an interpreter needs no activation.
use_environment() {
  environment="$root/.venv-$1"
  shift
  if [ ! -x "$environment/bin/pip" ]; then
    local base
    base="$(find_python)"
    command "$base" -m venv "$environment"
  fi
  echo "Installing into $environment (the first time downloads about 1 GB)"
  "$environment/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}

python() { "$environment/bin/python" "$@"; }
