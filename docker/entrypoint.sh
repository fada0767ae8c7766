#!/bin/sh
# What a container does: the verbs of the problem's run.sh, or any command of the image.
case "${1:-all}" in
  worklog | bash | sh | python | python3 | jupyter) exec "$@" ;;
esac
exec /workspace/docker/run-problem.sh "$WORKLOG_PROBLEM" "$@"
