#!/usr/bin/env bash
# Prints the TF_CONFIG of one worker: scripts/clusters/tf_config.sh PORT INDEX HOST...
# The hosts in the same order on all of them; INDEX is that of this worker's host, from 0.
set -euo pipefail

if [ $# -lt 3 ] || ! [[ "$1$2" =~ ^[0-9]+$ ]] || [ "$2" -ge $(($# - 2)) ]; then
  echo "tf_config.sh: give PORT, INDEX and at least one HOST, INDEX below the number of hosts; got: $*" >&2
  exit 2
fi
port="$1" index="$2"
shift 2
workers=""
for host in "$@"; do workers+="\"$host:$port\", "; done
echo "{\"cluster\": {\"worker\": [${workers%, }]}, \"task\": {\"type\": \"worker\", \"index\": $index}}"
