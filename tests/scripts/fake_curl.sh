#!/usr/bin/env bash
# Stands in for the metadata server of a TPU's workers; asks nobody.
case "${*: -1}" in
  */agent-worker-number) echo "$FAKE_WORKER" ;;
  */worker-network-endpoints) sed 's/^/unknown:unknown:/; s/;/,unknown:unknown:/g' "$FAKE/hosts" ;;
  *) exit 22 ;;
esac
