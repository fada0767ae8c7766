#!/bin/sh
# The Python environment of an image, from locks with hashes: install-python.sh cuda|cpu
set -eu
torch=${1:?cuda or cpu}
locks=$(dirname "$0")/locks
venv=${VIRTUAL_ENV:?}
index=https://download.pytorch.org/whl/cpu
python3 -m venv "$venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check --no-input --no-cache-dir -q "$@"; }
install_torch() {
  case "$torch" in
    cuda) pip install --require-hashes --no-deps -r "$locks/torch-cuda.txt" ;;
    cpu)
      # pip's own sources come first.
      pip install --require-hashes --no-deps -r "$locks/torch-cpu.txt" 2>/dev/null ||
        pip install --require-hashes --no-deps --index-url "$index" -r "$locks/torch-cpu.txt"
      ;;
    *)
      echo "error: TORCH=$torch is neither cuda nor cpu; choose one" >&2
      return 3
      ;;
  esac
}
# Both at once: unpacking and compiling keep one core each busy, and they share no file.
install_torch &
torch_install=$!
pip install --require-hashes --no-deps -r "$locks/image.txt"
wait "$torch_install"
"$venv/bin/python" - "$torch" <<'PYTHON'
import sys
from importlib.metadata import version

found = version("torch")
if found.endswith("+cpu") != (sys.argv[1] == "cpu"):
    sys.exit(f"error: torch {found} is not the {sys.argv[1]} build; check pip's sources")
PYTHON
# The test suites that some packages bring along: 240 MB that no run here looks at.
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
for package in numpy pandas pyarrow sympy; do
  find "$site/$package" -type d -name tests -prune -exec rm -rf {} +
done
rm -rf "$site/torch/test"
find "$site/torch/bin" -type f ! -name torch_shm_manager -delete
