#!/usr/bin/env bash
# Set up this repository (once) and run its case studies on this machine, GPU or CPU.
#
#   ./run.sh                       every problem
#   ./run.sh PROBLEM … [options]   these; options as in `worklog run --help`
#   ./run.sh setup [--dev]         only make the environment: .venv, with .venv/bin/worklog
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3.13 python3.12 python3.11 python3 python3.14; do
    if command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
    if [ -n "${PYTHON:-}" ] && [ "$candidate" = "$PYTHON" ]; then
      echo "error: PYTHON=$PYTHON is no Python 3.11 or newer; set it to one or unset it" >&2
      return 3
    fi
  done
  echo "error: Python 3.11 or newer is needed and none was found; install it or set PYTHON" >&2
  return 3
}

python=$(find_python) || exit 3
if [ "${1:-}" = setup ]; then
  shift
  exec "$python" "$here/common/setup_environment.py" "$@"
fi
"$python" "$here/common/setup_environment.py" || exit $?
exec "$here/.venv/bin/worklog" run "$@"
