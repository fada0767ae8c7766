#!/usr/bin/env bash
# Run one problem, in its container if there is one, else in this repository's environment.
#
#   run.sh [all]       reproduce it: times, traces, report; with a GPU also nsys and ncu
#   run.sh bench | profile | nsys | ncu [options of `worklog VERB`]
#   run.sh report [RUN …]      the HTML report (default: of the newest run)
#   run.sh notebook | shell | doctor
#
# Options of every verb: --dry-run prints each command and runs none; --out DIR (default: results/).
# From the environment: DOCKER (the engine; "none": the local environment), WORKLOG_IMAGE (default:
# the problem's name), DOCKER_RUN_FLAGS (handed on to `DOCKER run`), DOCKER_BUILD_FLAGS (named where
# the image has yet to be built), WORKLOG_PORT (of the notebook).
# Exit codes: those of `worklog`; 2 for a wrong call, 3 for something that is missing.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
problem=${1:?the name of a problem}
shift

say() { printf '%s: %s\n' "$problem" "$*" >&2; }
fail() {
  printf 'error: %s\n' "$2" >&2
  exit "$1"
}

verb=all
case "${1:-}" in
  all | bench | profile | nsys | ncu | report | notebook | shell | doctor)
    verb=$1
    shift
    ;;
  -h | --help)
    sed -n '2,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
  -* | '') ;;
  *) fail 2 "no verb '$1'; use all, bench, profile, nsys, ncu, report, notebook, shell or doctor" ;;
esac
dry=
out=$root/results
arguments=()
while [ $# -gt 0 ]; do
  case "$1" in
    --dry-run) dry=1 ;;
    --out)
      [ -n "${2:-}" ] || fail 2 "--out names no folder; give one"
      out=$2
      shift
      ;;
    --out=?*) out=${1#--out=} ;;
    *) arguments+=("$1") ;;
  esac
  shift
done

WORKLOG_IN_IMAGE=${WORKLOG_IN_IMAGE:-}
image=${WORKLOG_IMAGE:-$problem}
port=${WORKLOG_PORT:-8888}
read -ra engine <<<"${DOCKER:-docker}"
read -ra run_flags <<<"${DOCKER_RUN_FLAGS:-}"
worklog=${WORKLOG:-$root/.venv/bin/worklog}
[ -z "$WORKLOG_IN_IMAGE" ] || worklog=$VIRTUAL_ENV/bin/worklog
build="${DOCKER:-docker} build ${DOCKER_BUILD_FLAGS:+$DOCKER_BUILD_FLAGS }-f problems/$problem/Dockerfile -t $image ."

# Prints why the container cannot be used; nothing where it can.
no_container() {
  if [ "${engine[0]}" = none ]; then
    echo "DOCKER=none"
  elif ! command -v "${engine[0]}" >/dev/null 2>&1; then
    echo "no container engine (${engine[0]}) is here"
  elif ! "${engine[@]}" info >/dev/null 2>&1; then
    echo "${engine[0]} does not answer (no daemon, or no permission for it)"
  elif ! "${engine[@]}" image inspect "$image" >/dev/null 2>&1; then
    echo "the image $image is not built ($build)"
  fi
}

has_gpu() { nvidia-smi -L 2>/dev/null | grep -q '^GPU'; }

# Is everybody on this host allowed to read the GPU's counters?
counters_open() { grep -qs '^RmProfilingAdminOnly: 0' /proc/driver/nvidia/params; }

rootless() { "${engine[@]}" info 2>/dev/null | grep -qiE '^ *rootless(: true)?$'; }

# Runs or prints one command. Inside the image the command takes the place of this script, so that
# Ctrl-C reaches it.
step() {
  if [ -n "$dry" ]; then
    printf '%q ' "$@"
    echo
  elif [ -n "$WORKLOG_IN_IMAGE" ]; then
    exec "$@"
  else
    "$@"
  fi
}

make_out() {
  [ -n "$dry" ] && return
  { mkdir -p "$out" && [ -d "$out" ] && [ -w "$out" ]; } 2>/dev/null ||
    fail 2 "cannot write to $out; choose another folder with --out"
  out=$(cd "$out" && pwd)
}

# The command line of a container for a verb, in the array `container`: the least that works.
container_for() {
  local verb=$1 user
  user=$(id -u):$(id -g)
  container=("${engine[@]}" run --rm --security-opt no-new-privileges --cap-drop ALL
    --volume "$out:/workspace/results")
  if rootless; then
    case "${engine[0]##*/}" in
      podman) container+=(--userns keep-id) ;;
      *) user=0:0 ;; # root inside is the caller outside
    esac
  fi
  case "$verb" in
    notebook)
      container+=(--publish "127.0.0.1:$port:$port" --env "WORKLOG_PORT=$port")
      why="a port on this machine alone"
      ;;
    ncu)
      container+=(--network none)
      if counters_open; then
        why="none: this host lets everybody read the GPU's counters"
      else
        why="SYS_ADMIN and root, because the driver lets only administrators read the GPU's counters (NVreg_RestrictProfilingToAdminUsers=0 on the host makes it needless); the files are given to you"
        container+=(--cap-add SYS_ADMIN --cap-add DAC_OVERRIDE)
        [ "$user" = 0:0 ] || owner=$user
        user=0:0
      fi
      ;;
    nsys)
      container+=(--network none)
      why="none: CUDA and NVTX tracing need no privilege, and CPU sampling, which would, is off"
      ;;
    *)
      container+=(--network none)
      why=none
      ;;
  esac
  container+=(--user "$user")
  if has_gpu; then
    case "${engine[0]##*/}" in
      podman) container+=(--device nvidia.com/gpu=all) ;;
      *) container+=(--gpus all) ;;
    esac
  fi
  [ "$verb" != shell ] || ! [ -t 0 ] || container+=(--interactive --tty)
  container+=("${run_flags[@]}" "$image")
}

in_container() {
  local verb=$1 container why owner='' code=0
  shift
  container_for "$verb"
  say "$verb in the container $image (${engine[0]}); privileges: $why"
  trap : INT # the container gets it too, and ends in order
  step "${container[@]}" "$verb" "$@" || code=$?
  trap - INT
  # What root has written belongs to the caller, also after a failure.
  [ -z "$owner" ] || step "${engine[@]}" run --rm --network none --cap-drop ALL --cap-add CHOWN \
    --cap-add DAC_OVERRIDE --user 0:0 --volume "$out:/workspace/results" --entrypoint chown \
    "${run_flags[@]}" "$image" -R --from=0 "$owner" /workspace/results
  return $code
}

newest_run() {
  find "$out/$problem" -mindepth 2 -maxdepth 2 -type d -name '[0-9]*' ! -name '*.unfinished' \
    \( -exec test -e '{}/samples.jsonl' \; -o -exec test -e '{}/summary.json' \; \) -print 2>/dev/null | awk -F/ '{print $NF "\t" $0}' |
    sort | tail -n 1 | cut -f 2
}

locally() {
  local verb=$1
  shift
  [ -n "$WORKLOG_IN_IMAGE" ] || say "$verb in the local environment: $reason"
  [ -n "$dry" ] || [ -x "$worklog" ] ||
    fail 3 "there is no local environment either; build the image ($build) or run ./run.sh setup"
  case "$verb" in
    all) step "$worklog" run "$problem" --out "$out" "$@" ;;
    bench | profile) step "$worklog" "$verb" "$problem" --out "$out" "$@" ;;
    nsys | ncu)
      step "$worklog" "$verb" "$problem" --out "$out" "$@"
      # What is behind it, one command of the profiler per line.
      [ -z "$dry" ] || ! [ -x "$worklog" ] || "$worklog" "$verb" "$problem" --dry-run "$@"
      ;;
    report)
      [ $# -gt 0 ] || set -- "$(newest_run)"
      [ -n "$1" ] || [ -n "$dry" ] ||
        fail 2 "$out holds no finished run of $problem; make one with ./run.sh bench"
      step "$worklog" report "$@"
      ;;
    doctor) step "$worklog" doctor "$@" ;;
    notebook)
      [ -n "$dry" ] || [ -x "${worklog%/*}/jupyter" ] ||
        fail 3 "Jupyter is not in the local environment; build the image ($build)"
      local -a options=(--no-browser --port "$port" --ServerApp.root_dir="$root")
      # In a container: reachable through the one port that is published on 127.0.0.1.
      [ -z "$WORKLOG_IN_IMAGE" ] || options+=(--ip 0.0.0.0)
      [ "$(id -u)" != 0 ] || options+=(--allow-root)
      step "${worklog%/*}/jupyter" lab "${options[@]}" "$@"
      ;;
    shell) step env "PATH=${worklog%/*}:$PATH" bash "$@" ;;
  esac
}

run_verb() { if [ -z "$reason" ]; then in_container "$@"; else locally "$@"; fi; }

reason=$(no_container)
[ -z "$WORKLOG_IN_IMAGE" ] || reason="inside the image"
# What was asked for by name must not be replaced in silence.
insisted() {
  [ -z "$dry$WORKLOG_IN_IMAGE" ] && case "$reason" in
    '' | DOCKER=none) false ;;
    'the image'*) [ -n "${WORKLOG_IMAGE:-}" ] ;;
    *) [ -n "${DOCKER:-}" ] ;;
  esac
}
! insisted ||
  fail 3 "$reason; mend that, or unset DOCKER and WORKLOG_IMAGE to use the local environment"
make_out

code=0
run_verb "$verb" "${arguments[@]}" || code=$?
if [ "$verb" = all ] && [ -z "$WORKLOG_IN_IMAGE" ] && [ $code -le 1 ]; then
  # Each profiler in a run of its own, with its own privileges: none of it is timed.
  if has_gpu || [ -n "$dry" ]; then
    for tool in nsys ncu; do
      step_code=0
      run_verb "$tool" "${arguments[@]}" || step_code=$?
      [ $step_code -le $code ] || code=$step_code
    done
  else
    say "no GPU: nsys and ncu are left out; ./run.sh nsys records the ranges on a CPU"
  fi
fi
[ -n "$dry" ] || case "$verb" in all | bench | profile | nsys | ncu) say "results are in $out" ;; esac
exit $code
