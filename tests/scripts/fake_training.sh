#!/usr/bin/env bash
# Stands in for the Python of a TPU: notes what it was called with and ends as the next line of $FAKE/plan says.
printf '%s\n' "$@" >"$FAKE/arguments"
echo "${TPU_LOAD_LIBRARY:-}" >>"$FAKE/trainings"
next="$(head -n 1 "$FAKE/plan")"
sed -i 1d "$FAKE/plan"
echo "step 12 of 60000"
case "$next" in
  preempted)
    echo PREEMPTED >"$FAKE/state"
    exit 143
    ;;
  lost)
    # A server of another worker ends, and training waits for it for ever.
    kill -9 "$(cat "$FAKE/server1")"
    exec tail -f /dev/null
    ;;
  killed) kill -9 "$PPID" ;;
  *) exit "$next" ;;
esac
