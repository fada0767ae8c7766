#!/bin/sh
# Nsight Systems and Nsight Compute, pinned, into an image (or a test machine).
#
#   install-nsight.sh nvidia   from NVIDIA's package repository (network; not tried in CI)
#   install-nsight.sh debian   2022.x, from the non-free component of the base's own Debian archive
#   install-nsight.sh none     neither
#
# The Debian packages are unpacked, not installed: installed they would bring Debian's own libcuda,
# which hides the driver that the container toolkit mounts. Each tool ends up on PATH.
set -eu
NSYS_NVIDIA=2025.3.2
NCU_NVIDIA=2025.3.1
NSYS_DEBIAN=2022.4.2.1~11.8.0-5~deb12u1
NCU_DEBIAN=2022.3.0.22~11.8.0-5~deb12u1
CUDA_REPOSITORY=${CUDA_REPOSITORY:-https://developer.download.nvidia.com/compute/cuda/repos}
KEYRING=cuda-keyring_1.1-1_all.deb
prefix=${NSIGHT_PREFIX:-/opt/nsight}
export DEBIAN_FRONTEND=noninteractive

fail() {
  echo "error: $*" >&2
  exit 3
}

# shellcheck source=/dev/null
. /etc/os-release

from_nvidia() {
  case "$ID" in
    debian) distribution=debian$VERSION_ID ;;
    ubuntu) distribution=ubuntu$(echo "$VERSION_ID" | tr -d .) ;;
    *) fail "NVIDIA has no packages for $ID; build with --build-arg NSIGHT=none" ;;
  esac
  case "$(dpkg --print-architecture)" in
    amd64) machine=x86_64 ;;
    arm64) machine=sbsa ;;
    *) fail "NVIDIA has no packages for this processor; build with --build-arg NSIGHT=none" ;;
  esac
  address=$CUDA_REPOSITORY/$distribution/$machine/$KEYRING
  python3 -c 'import sys, urllib.request; urllib.request.urlretrieve(*sys.argv[1:])' \
    "$address" "/tmp/$KEYRING" ||
    fail "$address cannot be reached; build with --build-arg NSIGHT=debian or none"
  dpkg -i "/tmp/$KEYRING" >/dev/null
  rm "/tmp/$KEYRING"
  apt-get -qq update
  apt-get -qq install -y --no-install-recommends \
    "nsight-systems-$NSYS_NVIDIA" "nsight-compute-$NCU_NVIDIA" >/dev/null
  for tool in "/opt/nvidia/nsight-systems/$NSYS_NVIDIA/bin/nsys" \
    "/opt/nvidia/nsight-compute/$NCU_NVIDIA/ncu"; do
    [ -x "$tool" ] || fail "the package holds no $tool; report it with the base image's name"
    ln -sfn "$tool" "/usr/local/bin/$(basename "$tool")"
  done
}

# The archive that the base itself was made from, as apt knows it, with non-free beside main.
debian_archive() {
  apt-get indextargets --format "\$(REPO_URI) \$(CODENAME) \$(COMPONENT)" \
    'Created-By: Packages' 'Component: main' 'Origin: Debian' |
    awk -v codename="$VERSION_CODENAME" '$2 == codename {print $1; exit}'
}

from_debian() {
  [ "$ID-$VERSION_ID" = debian-12 ] || fail "NSIGHT=debian is pinned to Debian 12; use nvidia or none"
  [ "$(dpkg --print-architecture)" = amd64 ] || fail "NSIGHT=debian is for x86-64; use nvidia or none"
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  [ -n "$(debian_archive)" ] || apt-get -qq update
  # What the importer loads beside the base system; without it a capture ends in a .qdstrm.
  if ! ldconfig -p | grep -q libpfm.so.4 || ! ldconfig -p | grep -q libssh.so.4; then
    apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends libssh-4 libpfm4 \
      >/dev/null || fail "libssh-4 and libpfm4 cannot be installed; apt-get install them"
  fi
  archive=$(debian_archive)
  [ -n "$archive" ] || fail "apt knows no Debian archive here; use --build-arg NSIGHT=nvidia or none"
  mkdir "$folder/sources" "$folder/unpacked"
  # A list of its own: the machine's sources stay as they are.
  echo "deb $archive $VERSION_CODENAME non-free" >"$folder/sources/non-free.list"
  set -- -qq -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$folder/sources" \
    -o APT::Get::List-Cleanup=0 -o APT::Sandbox::User=root
  apt-get "$@" update
  for package in "nsight-systems=$NSYS_DEBIAN" "nsight-systems-target=$NSYS_DEBIAN" \
    "nsight-compute=$NCU_DEBIAN" "nsight-compute-target=$NCU_DEBIAN"; do
    (cd "$folder" && apt-get "$@" download "$package") || fail "$package is not in the archive"
    dpkg -x "$folder/${package%%=*}"_*.deb "$folder/unpacked"
    rm "$folder/${package%%=*}"_*.deb
  done
  library=$folder/unpacked/usr/lib
  rm -rf "$prefix"
  mkdir -p "$prefix/systems" "$prefix/compute"
  # nsys looks for its importer in the folder beside its own; the package has it elsewhere.
  mv "$library/x86_64-linux-gnu/nsight-systems/target-linux-x64" "$prefix/systems/"
  mv "$library/nsight-systems/host-linux-x64" "$prefix/systems/"
  mv "$library/x86_64-linux-gnu/nsight-compute/target" "$prefix/compute/"
  mv "$library/x86_64-linux-gnu/nsight-compute/sections" "$prefix/compute/"
  # The windows of the graphical program and their browser: 250 MB that a command line never loads.
  find "$prefix/systems/host-linux-x64" \( -name 'libQt6WebEngine*' -o -name 'nsys-ui*' \
    -o -name '*.pak' -o -name 'icudtl.dat' -o -name translations \) -prune -exec rm -rf {} +
  ssh=$(find /usr/lib -name libssh.so.4 -print -quit)
  ln -sfn "$ssh" "$prefix/systems/host-linux-x64/libssh.so"
  ln -sfn "$prefix/systems/target-linux-x64/nsys" /usr/local/bin/nsys
  ln -sfn "$prefix/compute/target/linux-desktop-glibc_2_11_3-x64/ncu" /usr/local/bin/ncu
}

case "${1:-}" in
  nvidia) from_nvidia ;;
  debian) from_debian ;;
  none) echo "neither nsys nor ncu is in this image" ;;
  *) fail "NSIGHT=${1:-} is none of nvidia, debian, none; choose one" ;;
esac
if [ "${1:-}" != none ]; then
  nsys --version
  ncu --version | tail -n 1
fi
