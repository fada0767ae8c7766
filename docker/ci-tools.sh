#!/usr/bin/env bash
# Give a bare Debian 12 machine what the tests of images and captures need, and say how to use it.
#
#   eval "$(docker/ci-tools.sh)"      as root; installs only what is missing
#
# A container engine (podman, where no engine works), real Nsight tools (nsys records NVTX ranges
# without a GPU), and a stand-in base image made from the machine's own package archive, because
# there may be no image registry. Progress goes to stderr, stdout is `export` lines.
# Whatever is particular to this site (archive, proxy, certificates, pip's sources) is read from the
# machine's own settings when this runs; none of it is written here.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
state=${WORKLOG_CI_STATE:-/var/tmp/worklog-ci}
base=localhost/worklog-ci-base:bookworm
export DEBIAN_FRONTEND=noninteractive

say() { printf 'ci-tools: %s\n' "$*" >&2; }
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 3
}

install_packages() {
  [ "$(id -u)" = 0 ] || fail "$1 is missing and only root can install it; run this as root"
  say "installing $*"
  local -a get=(apt-get -qq -o DPkg::Lock::Timeout=300)
  {
    "${get[@]}" update || say "not all package lists could be renewed; see $state/apt.log"
    "${get[@]}" install -y --no-install-recommends "$@" || fail "apt-get failed; see $state/apt.log"
  } >>"$state/apt.log"
}

# The engine that answers: the one named by DOCKER, else docker, else podman.
find_engine() {
  local engine
  for engine in ${DOCKER:-docker podman}; do
    if command -v "$engine" >/dev/null 2>&1 && "$engine" info >/dev/null 2>&1; then
      echo "$engine"
      return
    fi
  done
}

# podman where there is no systemd and where the kernel refuses its usual ulimits.
configure_podman() {
  cat >"$state/containers.conf" <<'CONF'
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
CONF
  export CONTAINERS_CONF=$state/containers.conf
  printf 'export CONTAINERS_CONF=%q\n' "$CONTAINERS_CONF"
}

make_base() {
  local root=$state/base archive
  command -v debootstrap >/dev/null 2>&1 || install_packages debootstrap
  # The archive of this machine's own Debian, as apt knows it.
  archive=$(apt-get indextargets --format "\$(REPO_URI) \$(CODENAME)" \
    'Created-By: Packages' 'Component: main' 'Origin: Debian' | awk '$2 == "bookworm" {print $1; exit}')
  [ -n "$archive" ] || fail "apt knows no Debian 12 archive here; add one to its sources"
  say "making the stand-in base image"
  rm -rf "$root"
  debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv bookworm \
    "$root" "$archive" >"$state/debootstrap.log" 2>&1 ||
    fail "debootstrap failed; see $state/debootstrap.log"
  rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
  tar -C "$root" -c . | "$engine" import - "$base" >/dev/null 2>&1 ||
    fail "$engine cannot import an image; see: tar -C $root -c . | $engine import - $base"
  rm -rf "$root"
}

# pip's sources and certificates, for builds alone: mounted, so that nothing stays in an image.
build_flags() {
  local kind place
  [ "$engine" = docker ] || printf -- '--isolation chroot --network host '
  python3 -m pip config list >"$state/pip.list" 2>/dev/null || return 0
  python3 "$here/pip_settings.py" "$state/pip.list" "$state/pip.conf" >"$state/pip.places"
  printf -- '--secret id=pip.conf,src=%s ' "$state/pip.conf"
  while read -r kind place; do
    case "$kind" in
      cert) printf -- '--secret id=ca.crt,src=%s ' "$place" ;;
      folder) [ "$engine" = docker ] || printf -- '--volume %s:%s:ro ' "$place" "$place" ;;
    esac
  done <"$state/pip.places"
}

mkdir -p "$state"
engine=$(find_engine)
if [ -z "$engine" ]; then
  install_packages podman buildah runc crun debootstrap
  engine=podman
fi
[ "$engine" != podman ] || [ -n "${CONTAINERS_CONF:-}" ] || configure_podman
"$engine" info >"$state/engine.log" 2>&1 || fail "$engine does not work here; see $state/engine.log"
if ! command -v nsys >/dev/null 2>&1; then
  say "installing the Nsight tools"
  "$here/install-nsight.sh" debian >>"$state/apt.log" 2>&1 ||
    fail "the Nsight tools could not be installed; see $state/apt.log"
fi
# The browser in which the pages are read.
command -v chromium >/dev/null 2>&1 || install_packages chromium fonts-dejavu-core
"$engine" image inspect "$base" >/dev/null 2>&1 || make_base
printf 'export DOCKER=%q BASE_IMAGE=%q\n' "$engine" "$base"
printf 'export DOCKER_BUILD_FLAGS=%q\n' "$(build_flags)"
