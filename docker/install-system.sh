#!/bin/sh
# What a base image must hold beside Python: the C++ compiler that Inductor and Triton call, Python's
# headers and venv where the base's Python lacks them, certificates. Any Debian-family base will do.
set -eu
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "error: the base image has no Python 3.11 or newer; choose another BASE_IMAGE" >&2
  exit 3
}
packages="ca-certificates g++"
python3 -c 'import ensurepip' 2>/dev/null || packages="$packages python3-venv"
headers=$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')
[ -f "$headers/Python.h" ] || packages="$packages python3-dev"
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
# shellcheck disable=SC2086 # one word per package
apt-get -qq install -y --no-install-recommends $packages >/dev/null
# One user for every caller: run.sh starts the container with the caller's own number.
id worklog >/dev/null 2>&1 || useradd --create-home --uid 1000 worklog
mkdir -p /workspace/results /cache
chmod 1777 /home/worklog /workspace/results /cache
