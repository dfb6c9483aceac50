#!/usr/bin/env bash
# A cloud in the folder $FAKE: `state` of the one TPU, its disk `home`, and `plan`, what each training on it comes to.
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
    mkdir "$FAKE/home"
    echo READY >"$FAKE/state"
    ;;
  delete) rm -r "${FAKE:?}/state" "${FAKE:?}/home" ;;
  scp) cp "$5" "$FAKE/home/${6#*:}" ;;
  ssh)
    [ "$(cat "$FAKE/state")" = READY ] || exit 255
    command="$(argument --command "$@")"
    # The real one would fetch gigabytes.
    command="${command/bash sp-transformer\/scripts\/install_tpu.sh/"mkdir -p sp-transformer/.venv-tpu/bin; cp $FAKE/python sp-transformer/.venv-tpu/bin"}"
    cd "$FAKE/home" && bash -c "$command"
    ;;
esac
