#!/usr/bin/env bash
# Every check of this repository: format, lint, types, scripts, tests, worklogs. Needs no GPU.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
./run.sh setup --dev
bin=.venv/bin

step() { printf '\n== %s\n' "$1"; }

step "format and lint"
"$bin/ruff" format --check .
"$bin/ruff" check .
step "types"
"$bin/mypy"
step "shell scripts"
git ls-files -z '*.sh' .ci/run | xargs -0 "$bin/shellcheck"
step "image files"
"$bin/hadolint" problems/*/Dockerfile
if [ $# -gt 0 ]; then # ./test.sh tests/diff -k gaps
  step "tests: $*"
  "$bin/python" -m pytest "$@"
else
  step "tests, two at a time"
  "$bin/python" -m pytest --numprocesses 2 --dist loadfile -m "not alone" --durations 25
  step "tests that measure time or take both cores"
  "$bin/python" -m pytest -m alone --durations 10
fi
step "worklogs agree with their evidence"
"$bin/worklog" check
