#!/usr/bin/env bash
# Reproduce this problem: ./run.sh [all | bench | profile | nsys | ncu | report | notebook | shell |
# doctor] [--dry-run] [--out DIR] [options]. In the container if it is built, else locally:
#
#   docker build -f problems/cuda_graph_memory/Dockerfile -t cuda_graph_memory .
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec "$here/../../docker/run-problem.sh" "$(basename "$here")" "$@"
