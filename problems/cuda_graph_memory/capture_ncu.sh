#!/usr/bin/env bash
# Nsight Compute metrics of the kernels that matter (problem.toml, [capture]); needs a GPU and the
# permission to read its counters. Options: those of `worklog ncu`.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/run.sh" ncu "$@"
