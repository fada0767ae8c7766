#!/usr/bin/env bash
# Gather the wheels that a machine with torch but no network lacks, for `worklog record --wheels`.
#
#   docker/wheels.sh --out DIR [--python 3.12] [--machine x86_64] [--glibc 2.28] [--max-size 60M]
#                    [--have NAME|FILE …] [--without NAME …] [--with triton] [--dry-run] [PROBLEM …]
#
# Pinned, with the hashes of the images' locks. --python, --machine and --glibc are those of the
# other machine (there: python3 --version, uname -m, ldd --version). --have: what it has already, a
# package or the output of `pip freeze`. --with triton: the variants' pinned Triton too (190 MB);
# without it the one that came with the machine's torch is used. What is published only as source is built, if it is pure
# Python; what exists for no such machine is an error.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out="" python=3.12 machine=x86_64 glibc=2.28 limit="" dry=""
pins=()

fail() {
  printf 'error: %s\n' "$*" >&2
  exit "${code:-2}"
}

bytes() {
  [[ $1 =~ ^([0-9]+)([KMG]?)$ ]] || fail "$1 is no size; write 60M"
  case "${BASH_REMATCH[2]}" in
    K) echo $((BASH_REMATCH[1] << 10)) ;;
    M) echo $((BASH_REMATCH[1] << 20)) ;;
    G) echo $((BASH_REMATCH[1] << 30)) ;;
    *) echo "${BASH_REMATCH[1]}" ;;
  esac
}

while [ $# -gt 0 ]; do
  case "$1" in
    --out | --python | --machine | --glibc | --max-size | --have | --without | --with)
      [ $# -gt 1 ] || fail "$1 needs a value; see the head of $0"
      case "$1" in
        --out) out=$2 ;;
        --python) python=$2 ;;
        --machine) machine=$2 ;;
        --glibc) glibc=$2 ;;
        --max-size) limit=$(bytes "$2") || exit 2 ;;
        *) pins+=("$1" "$2") ;;
      esac
      shift 2
      ;;
    --dry-run) dry=yes && shift ;;
    -*) fail "no option $1; see the head of $0" ;;
    *) pins+=("$1") && shift ;;
  esac
done
[[ $python =~ ^3\.[0-9]+$ ]] || fail "--python $python is no version; write 3.12"
[[ $machine =~ ^(x86_64|aarch64)$ ]] || fail "--machine $machine is neither x86_64 nor aarch64"
[[ $glibc =~ ^2\.[0-9]+$ ]] || fail "--glibc $glibc is no version; write 2.28"

pip() { python3 -m pip --disable-pip-version-check --no-input "$@" >"$work/pip.log" 2>&1; }

fetch() {
  pip download -q --no-deps --require-hashes --only-binary=:all: --implementation cp \
    --python-version "$python" "${platforms[@]}" -d "$work/found" -r "$1"
}

# A wheel made here serves another machine only if it holds nothing that was compiled.
build_pure() {
  rm -rf "$work/built"
  pip wheel -q --no-deps --require-hashes -w "$work/built" -r "$1" || return 1
  local made
  made=$(find "$work/built" -name '*-none-any.whl' -print -quit)
  [ -n "$made" ] || return 1
  mkdir -p "$work/found" && mv "$made" "$work/found/"
}

wanted=$(python3 "$here/wheel_pins.py" ${pins[@]+"${pins[@]}"}) || exit $?
[ -n "$wanted" ] || fail "nothing is left to gather; give fewer --have"
if [ -n "$dry" ]; then
  grep -o '^[^ ]*==[^ ]*' <<<"$wanted"
  exit 0
fi
[ -n "$out" ] || fail "--out DIR is missing; say where the wheels go"
mkdir -p "$out"
work=$(mktemp -d "$out/.wheels-XXXXXX")
trap 'rm -rf "$work"' EXIT
printf '%s\n' "$wanted" >"$work/requirements.txt"
platforms=()
for minor in $(seq "${glibc#2.}" -1 5); do
  platforms+=(--platform "manylinux_2_${minor}_$machine")
done
platforms+=(--platform "manylinux2014_$machine" --platform "manylinux2010_$machine")
platforms+=(--platform "manylinux1_$machine" --platform "linux_$machine")
code=3
# One at a time: several versions of one library are wanted, and pip resolves one of each.
csplit -s -z -f "$work/entry." -b '%03d.txt' "$work/requirements.txt" '/^[A-Za-z0-9]/' '{*}'
for entry in "$work"/entry.*.txt; do
  name=$(grep -o '^[^ ]*==[^ ]*' "$entry")
  echo "wheels: $name" >&2
  fetch "$entry" || build_pure "$entry" ||
    fail "$name cannot be had for Python $python on $machine with glibc $glibc" \
      "($(tail -n 1 "$work/pip.log")); choose others, or leave it out with --without ${name%%==*}"
done
total=$(cat "$work"/found/*.whl | wc -c)
if [ -n "$limit" ] && [ "$total" -gt "$limit" ]; then
  find "$work/found" -name '*.whl' -printf '%12s  %f\n' | sort -rn >&2
  code=1
  fail "the wheels take $total bytes, $limit are allowed; leave some out with --have or --without"
fi
mv "$work"/found/*.whl "$out/"
ls "$out"/*.whl
echo "wheels: $total bytes in $out; there: worklog record --wheels DIR" >&2
