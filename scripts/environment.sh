# Sourced by the other scripts: finds Python 3.11 and keeps one virtual environment per purpose inside the source tree.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

# What no machine of ours has: nothing below may look for a cloud's metadata server.
export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-2}"
export GCE_METADATA_IP="${GCE_METADATA_IP:-127.0.0.1:9}" NO_GCE_CHECK="${NO_GCE_CHECK:-true}"

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.11 python3 python; do
    if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "Python 3.11 was not found; install it, or name it: PYTHON=/path/to/python3.11 $0" >&2
  return 1
}

# use_environment NAME PIP_ARGUMENT...: enters $root/.venv-NAME, made if it is missing, and installs into it.
use_environment() {
  local folder="$root/.venv-$1" python
  shift
  if [ ! -x "$folder/bin/python" ]; then
    python="$(find_python)"
    "$python" -m venv "$folder"
  fi
  # Not `activate`: the folder may have been moved since, and `python -m` needs no activation.
  python() { "$folder/bin/python" "$@"; }
  environment="$folder"
  echo "Installing into $folder (the first time downloads about 1 GB)"
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}
