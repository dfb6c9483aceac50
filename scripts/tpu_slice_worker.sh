#!/usr/bin/env bash
# What every worker of a TPU slice runs, the same command on all of them; scripts/launch_tpu.sh --slice starts it.
#
#   scripts/tpu_slice_worker.sh TRAINING_COMMAND...
#
# One process of TensorFlow drives all chips of a slice, through a server on each worker. So every worker starts the server
# that comes with tensorflow-tpu, and worker 0, once all servers answer, runs TRAINING_COMMAND with their addresses as
# --master. Worker 0 ends with training's code. The others stay as long as their server does; a server that does not come
# up, or ends, is told in plain words and ends the worker with code 75.
#
#   TPU_TASK_PORT             of the servers; default: 8470
#   TPU_WORKER_WAIT_SECONDS   until all of them have to answer; default: 300
set -euo pipefail

# As in sp_transformer/exit_codes.py.
lost_peer=75
port="${TPU_TASK_PORT:-8470}"
wait_seconds="${TPU_WORKER_WAIT_SECONDS:-300}"

say() { echo "tpu_slice_worker: $*"; }

fail() {
  say "$*"
  exit "$lost_peer"
}

# What the machine's metadata server says about its place in the slice.
metadata() {
  curl -sSf --retry 5 -H 'Metadata-Flavor: Google' "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"
}

answers() { timeout 5 bash -c "exec 3<>/dev/tcp/$1/$port" 2>/dev/null; }

# The number of this worker, and the addresses of all: `number` and `addresses`.
find_place() {
  local endpoints entry
  { number="$(metadata agent-worker-number)" && endpoints="$(metadata worker-network-endpoints)"; } ||
    fail "the metadata server does not tell which worker this is: it is none of a TPU, or its network is down"
  addresses=()
  # Entries are separated by commas, their fields by colons; the third is the address.
  for entry in ${endpoints//,/ }; do addresses+=("$(cut -d : -f 3 <<<"$entry")"); done
  [[ "$number" =~ ^[0-9]+$ ]] && [ "$number" -lt "${#addresses[@]}" ] ||
    fail "the metadata server says that this is worker $number of '$endpoints', which cannot be"
}

server_log() { tail -n 5 tpu_server.log; }

start_server() {
  if answers "${addresses[number]}"; then
    fail "worker $number: another program has port $port. An image with TPU servers of its own (tpu-vm-tf-...) runs one, of \
another TensorFlow: take --runtime_version tpu-ubuntu2204-base, or stop it (systemctl list-units | grep -i tpu)"
  fi
  # A SIGTERM to all processes of a machine that is taken away has to leave training the chips to save with.
  (trap '' TERM && exec .venv-tpu/bin/start_grpc_tpu_worker) >tpu_server.log 2>&1 &
  server=$!
  trap 'kill -9 "$server" 2>/dev/null || true' EXIT
  until answers "${addresses[number]}"; do
    kill -0 "$server" 2>/dev/null || fail "worker $number: the TPU server ended: $(server_log)"
    [ "$SECONDS" -lt "$wait_seconds" ] || fail "worker $number: the TPU server does not answer after $SECONDS s: $(server_log)"
    sleep 1
  done
  say "worker $number of ${#addresses[@]} answers on ${addresses[number]}:$port" >>tpu_server.log
}

wait_for_all() {
  local other
  for other in "${!addresses[@]}"; do
    until answers "${addresses[other]}"; do
      [ "$SECONDS" -lt "$wait_seconds" ] || fail "the TPU server of worker $other (${addresses[other]}:$port) does not answer \
after $SECONDS s; sp-transformer/train.log on that worker says why, or a firewall stands between the two"
      sleep 1
    done
  done
}

find_place
start_server
if [ "$number" != 0 ]; then
  # Worker 0 saves meanwhile.
  trap 'sleep 20; exit 143' TERM
  wait "$server" || true
  fail "worker $number: the TPU server has ended: $(server_log)"
fi
wait_for_all
master="$(printf ",grpc://%s:$port" "${addresses[@]}")"
# Training answers a SIGTERM; this shell waits for it.
trap : TERM
code=0
# The servers hold the chips, not the process that drives them.
TPU_LOAD_LIBRARY=0 "$@" --master "${master#,}" || code=$?
exit "$code"
