#!/usr/bin/env bash
# Trains on a Cloud TPU from your own machine: creates or reuses it, installs this source tree, starts the training, and
# starts it again after a preemption until it is through. Training runs on by itself if this script is stopped; the same
# command takes it up again. See docs/tpu.md.
set -euo pipefail

usage() {
  cat <<'USAGE'
scripts/launch_tpu.sh --name NAME --zone ZONE --accelerator_type TYPE --model_dir gs://BUCKET/RUN [options] -- TRAIN_ARGUMENTS

  --name NAME               of the TPU; it is created if there is none
  --zone ZONE               as us-central2-b
  --accelerator_type TYPE   as v4-8, v5litepod-8, v3-32
  --model_dir gs://...      folder of the run, which every machine and every restart sees
  --project PROJECT         default: gcloud's
  --runtime_version V       image of the machines; default: tpu-ubuntu2204-base
  --spot                    a machine that costs less and may be taken away at any time
  --slice                   a TPU of several hosts: the same command on all, which trains on the first through a server on each
  --poll_seconds N          between two looks; default: 60
  --max_restarts N          restarts in a row without a preemption, before it is given up; default: 10
  --delete_at_end           deletes the TPU when training is through, or has failed for good
  --dry_run                 prints every command and runs none

TRAIN_ARGUMENTS are those of python -m sp_transformer.train, without --model_dir and --master.
USAGE
}

fail() {
  echo "launch_tpu: $*" >&2
  exit "$usage_error"
}

say() { echo "launch_tpu: $*"; }

# The codes of sp_transformer/exit_codes.py that matter here.
usage_error=2
lost_peer=75
killed=137
# After these another try would end in the same way: done, usage, not finite, cannot write, timed out, interrupted.
final_codes=" 0 2 3 4 5 130 "
# A machine may be out of reach for a moment without being lost.
failures_allowed=10
# A zone may have no machine to give for hours: looks between two tries to create one, at most.
longest_wait=30

name="" zone="" accelerator_type="" model_dir="" project="" runtime_version="tpu-ubuntu2204-base"
spot=false slice=false poll_seconds=60 max_restarts=10 delete_at_end=false dry_run=false
train_arguments=()

parse() {
  while [ $# -gt 0 ]; do
    case "$1" in
      --name | --zone | --accelerator_type | --model_dir | --project | --runtime_version | --poll_seconds | --max_restarts)
        [ $# -gt 1 ] || fail "$1 needs a value"
        printf -v "${1#--}" %s "$2"
        shift 2
        ;;
      --spot | --slice | --delete_at_end | --dry_run)
        printf -v "${1#--}" %s true
        shift
        ;;
      --help | -h)
        usage
        exit 0
        ;;
      --)
        shift
        train_arguments=("$@")
        return
        ;;
      *) fail "unknown argument $1; arguments of training come behind --, and --help lists the others" ;;
    esac
  done
}

check() {
  local required
  for required in name zone accelerator_type model_dir; do
    [ -n "${!required}" ] || fail "--$required must be given; --help says what it is"
  done
  [[ "$name" =~ ^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$ ]] ||
    fail "--name $name is not a name that a TPU can have: up to 63 of a-z, 0-9 and -, the first a letter, the last no -"
  [[ "$zone" =~ ^[a-z]+-[a-z]+[0-9]+-[a-z]$ ]] || fail "--zone $zone is not a zone, as us-central2-b"
  [[ "$accelerator_type" =~ ^v[0-9]+[a-z]*-[0-9]+$ ]] ||
    fail "--accelerator_type $accelerator_type is not a type of TPU, as v4-8 or v5litepod-8"
  [[ "$model_dir" =~ ^gs://[^/]+/.+ ]] ||
    fail "--model_dir $model_dir is not gs://BUCKET/FOLDER: the disk of a TPU goes with it"
  [[ "$poll_seconds" =~ ^[1-9][0-9]*$ ]] || fail "--poll_seconds $poll_seconds is not a whole number above 0"
  [[ "$max_restarts" =~ ^[0-9]+$ ]] || fail "--max_restarts $max_restarts is not a whole number"
  [ ${#train_arguments[@]} -gt 0 ] ||
    fail "nothing to train: put its arguments behind --, as -- --config_file configs/cityscapes/resnet50.textproto"
  local argument
  for argument in "${train_arguments[@]}"; do
    case "$argument" in
      --model_dir | --model_dir=* | --master | --master=*)
        fail "${argument%%=*} is set by this script; leave it out behind --"
        ;;
    esac
  done
  $dry_run || type -P gcloud >/dev/null || fail "gcloud was not found; install Google Cloud's command line tools, or try --dry_run"
}

# The arguments as a line that a shell reads back.
quoted() {
  local word line=""
  for word in "$@"; do
    [[ "$word" =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]] || word="${word@Q}"
    line+=" $word"
  done
  echo "${line# }"
}

# Runs a command, or prints it.
run() {
  if $dry_run; then quoted "$@"; else "$@"; fi
}

tpu() {
  local verb="$1"
  shift
  run gcloud compute tpus tpu-vm "$verb" "$@" --zone "$zone" ${project:+--project "$project"} --quiet
}

# on WORKERS COMMAND
on() { tpu ssh "$name" --worker "$1" --command "$2"; }

# State of the TPU, "NONE" if there is none. Fails if that cannot be told: a TPU must not be created anew for a lost network.
state() {
  local output
  if output="$(tpu describe "$name" --format 'value(state)' 2>&1)"; then
    echo "$output"
  elif [[ "$output" == *NOT_FOUND* || "$output" == *"not found"* ]]; then
    echo NONE
  else
    echo "$output" >&2
    return 1
  fi
}

create() {
  local options=(--accelerator-type "$accelerator_type" --version "$runtime_version")
  $spot && options+=(--spot)
  say "creating $name ($accelerator_type in $zone)"
  tpu create "$name" "${options[@]}"
}

# Counts what has gone wrong in a row, and gives up at last.
failures=0
try_again() {
  failures=$((failures + 1))
  if [ "$failures" -ge "$failures_allowed" ]; then
    say "$1, $failures times in a row; given up. If training runs, it goes on: the same command takes it up again"
    exit "$lost_peer"
  fi
  say "$1; trying again in $poll_seconds s"
  sleep "$poll_seconds"
}

# Waits before the next try to create, longer each time and never giving up: that there is no room is no fault of the run.
looks=1
wait_to_create() {
  local seconds=$((looks * poll_seconds))
  say "$name could not be created; gcloud says why above. It is tried until it works, next in $seconds s; Ctrl-C ends that"
  sleep "$seconds"
  looks=$((2 * looks < longest_wait ? 2 * looks : longest_wait))
}

# Returns with the TPU ready.
make_ready() {
  local now
  if $dry_run; then
    tpu describe "$name" --format 'value(state)'
    create
    return
  fi
  while :; do
    if ! now="$(state)"; then
      try_again "gcloud cannot tell the state of $name"
      continue
    fi
    case "$now" in
      READY)
        looks=1
        return
        ;;
      PREEMPTED | TERMINATED | UNKNOWN)
        say "$name is $now; deleting what is left of it"
        tpu delete "$name" || try_again "$name could not be deleted"
        ;;
      STOPPED) tpu start "$name" || try_again "$name could not be started" ;;
      NONE) create || wait_to_create ;;
      *)
        say "$name is $now"
        sleep "$poll_seconds"
        ;;
    esac
  done
}

check_hosts() {
  $dry_run && return
  local hosts
  hosts="$(tpu describe "$name" --format 'value(networkEndpoints[].ipAddress)' | tr ';,' '\n' | grep -c .)" || hosts=1
  if [ "$hosts" -gt 1 ] && ! $slice; then
    fail "$name has $hosts hosts, which one process trains on: give --slice"
  fi
}

install() {
  say "installing on all workers of $name"
  local archive=sp-transformer.tar.gz folder=/tmp
  $dry_run || folder="$(mktemp -d)"
  run tar -C "$root" --exclude '*.pyc' --exclude '*_pb2.py' -czf "$folder/$archive" constraints-tpu.txt setup.py pyproject.toml \
    MANIFEST.in README.md LICENSE protos configs scripts sp_transformer || return
  tpu scp "$folder/$archive" "$name:$archive" --worker all || return
  $dry_run || rm -rf "$folder"
  # The image of Ubuntu 22.04 comes with Python 3.10.
  on all "set -e; type python3.11 >/dev/null || sudo apt-get install -y python3.11 python3.11-venv; mkdir -p sp-transformer; \
tar -xzf $archive -C sp-transformer; bash sp-transformer/scripts/install_tpu.sh"
}

# Whether training goes on there, started by an earlier call of this script.
runs_already() {
  ! $dry_run && on all "cd sp-transformer && [ ! -e exit_code ] && kill -0 \$(cat pid)" >/dev/null 2>&1
}

# Ends what an earlier start has left on the workers of a slice, so that no worker meets an old server of another.
stop() {
  on all "cd sp-transformer && if [ -e pid ]; then group=-\$(cat pid); kill -- \$group; for _ in {1..60}; do \
kill -0 -- \$group || break; sleep 1; done; kill -9 -- \$group; fi 2>/dev/null; true"
}

# Starts training on the machine, apart from this connection; on a slice, the same command on all workers.
start() {
  local command=(.venv-tpu/bin/python -m sp_transformer.train "${train_arguments[@]}" --model_dir "$model_dir") line
  if $slice; then
    stop || return
    command=(bash scripts/tpu_slice_worker.sh "${command[@]}")
  else
    command+=(--master local)
  fi
  line="$(quoted "${command[@]}") >> train.log 2>&1; echo \$? > exit_code"
  say "starting training"
  on all "cd sp-transformer && rm -f exit_code && { nohup setsid bash -c ${line@Q} >/dev/null 2>&1 & echo \$! > pid; }"
}

# What training says now: a line `exit CODE` where it has ended, else the end of its log.
look() {
  on all "cd sp-transformer && if [ -e exit_code ]; then echo exit \$(cat exit_code); \
elif kill -0 \$(cat pid); then tail -c 300 train.log | tr '\\r' '\\n' | tail -n 1; else echo exit $killed; fi"
}

# Waits until training has ended, or the TPU is gone; sets `code`, empty for the latter.
wait_for_end() {
  local seen now codes one
  code=""
  while :; do
    if seen="$(look)"; then
      failures=0
      # Of a slice's workers only the first one trains; what the others can say is that they have lost their server.
      codes="$(sed -n 's/^exit \([0-9][0-9]*\)$/\1/p' <<<"$seen")"
      code="$(grep -vx "$lost_peer" <<<"$codes" | head -n 1 || true)"
      code="${code:-${codes%%$'\n'*}}"
      # One that failed for good, whatever its end has done to the others.
      for one in $codes; do
        if [[ "$final_codes" == *" $one "* ]]; then code="$one"; fi
      done
      if [ -n "$code" ]; then return; fi
      [ -z "$seen" ] || echo "$seen"
      sleep "$poll_seconds"
    elif now="$(state)" && [ "$now" != READY ]; then
      say "$name is $now"
      return
    else
      try_again "$name is out of reach"
    fi
  done
}

finish() {
  say "training ended with code $1$([ "$1" = 0 ] || echo "; docs/training.md explains it")"
  if [ "$1" != 0 ]; then on all "tail -n 20 sp-transformer/train.log" || true; fi
  if $delete_at_end; then
    tpu delete "$name"
  else
    if $slice; then stop || true; fi
    say "$name still costs money; delete it: gcloud compute tpus tpu-vm delete $name --zone $zone"
  fi
  exit "$1"
}

parse "$@"
check
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

restarts=0
while :; do
  make_ready
  check_hosts
  if ! runs_already && ! { install && start; }; then
    try_again "$name could not be set up"
    continue
  fi
  if $dry_run; then
    look
    if $delete_at_end; then tpu delete "$name"; fi
    exit 0
  fi
  failures=0
  wait_for_end
  if [[ -n "$code" && "$final_codes" == *" $code "* ]]; then finish "$code"; fi
  if [ -n "$code" ] && [ "$(state || echo READY)" = READY ]; then
    restarts=$((restarts + 1))
    if [ "$restarts" -gt "$max_restarts" ]; then finish "$code"; fi
    say "training ended with code $code; starting it again (restart $restarts of $max_restarts)"
    sleep "$poll_seconds"
  else
    restarts=0
    say "$name was taken away; training goes on from $model_dir on the next one"
  fi
done
