#!/usr/bin/env bash
# Nsight Systems traces of the range of interest: with a GPU one run in graph mode (durations) and
# one in node mode (breakdown), each exported to SQLite. Options: those of `worklog nsys`.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/run.sh" nsys "$@"
