#!/usr/bin/env bash
# A cloud in the folder $FAKE: `state` of the one TPU, its `hosts`, a disk for each, `home` and `home1` and so on, and `plan`,
# what each training on it comes to.
echo "$*" >>"$FAKE/log"
verb="$4"

argument() {
  local name="$1"
  shift
  while [ $# -gt 1 ]; do
    if [ "$1" = "$name" ]; then
      echo "$2"
      return
    fi
    shift
  done
}

homes=()
for _ in $(tr ';' ' ' <"$FAKE/hosts"); do homes+=("$FAKE/home${#homes[@]}"); done
homes[0]="$FAKE/home"

case "$verb" in
  describe)
    if [ -e "$FAKE/refused" ]; then
      echo "ERROR: PERMISSION_DENIED" >&2
      exit 1
    elif [ ! -e "$FAKE/state" ]; then
      echo "ERROR: (gcloud.compute.tpus.tpu-vm.describe) NOT_FOUND: Resource was not found" >&2
      exit 1
    elif [ "$(argument --format "$@")" = "value(state)" ]; then
      cat "$FAKE/state"
    else
      cat "$FAKE/hosts"
    fi
    ;;
  create)
    left="$(cat "$FAKE/stockout" 2>/dev/null || echo 0)"
    if [ "$left" -gt 0 ]; then
      echo "$((left - 1))" >"$FAKE/stockout"
      echo "ERROR: RESOURCE_EXHAUSTED: there is no more capacity in the zone" >&2
      exit 1
    fi
    mkdir "${homes[@]}"
    echo READY >"$FAKE/state"
    ;;
  delete)
    for home in "${homes[@]}"; do
      pid="$home/sp-transformer/pid"
      [ ! -e "$pid" ] || kill -9 -- "-$(cat "$pid")" 2>/dev/null || true
    done
    rm -r "${FAKE:?}/state" "${homes[@]}"
    ;;
  scp) for home in "${homes[@]}"; do cp "$5" "$home/${6#*:}"; done ;;
  ssh)
    [ "$(cat "$FAKE/state")" = READY ] || exit 255
    command="$(argument --command "$@")"
    # The real one would fetch gigabytes.
    command="${command/bash sp-transformer\/scripts\/install_tpu.sh/"mkdir -p sp-transformer/.venv-tpu/bin; cp $FAKE/python $FAKE/start_grpc_tpu_worker sp-transformer/.venv-tpu/bin"}"
    status=0
    for number in "${!homes[@]}"; do
      (cd "${homes[number]}" && FAKE_WORKER="$number" bash -c "$command") || status=$?
    done
    exit "$status"
    ;;
esac
