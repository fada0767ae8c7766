#!/usr/bin/env bash
# Reproduce this problem: ./run.sh [all | bench | profile | nsys | ncu | report | notebook | shell |
# doctor] [--dry-run] [--out DIR] [options]. In the container if it is built, else locally:
#
#   docker build -f problems/moe_batch_scaling/Dockerfile -t moe_batch_scaling .
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec "$here/../../docker/run-problem.sh" "$(basename "$here")" "$@"
