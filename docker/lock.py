"""Which files exactly may be installed? Writes the locks: every package with all its hashes.

    python docker/lock.py         needs uv (https://docs.astral.sh/uv) and a package index

`run.txt` is what run.sh installs, `dev.txt` what test.sh adds, `image.txt` what an image holds;
torch has a lock for each of its builds. torch-cpu.txt is made from PyTorch's own index.

A lock lists the hash of every file that its index has of a version, so that it holds on other
processors and Python versions, and for a wheel from a local folder as long as it is the published
one. Run it after any change of a requirements file, of the pinned torch, or of a variant's
packages; a test compares the locks with those.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "docker" / "locks"
sys.path.insert(0, str(ROOT))

from common.setup_environment import PYTORCH_CPU_INDEX, TORCH  # noqa: E402

# What an image holds beside requirements.txt, and the version it was last locked at.
EXTRA = ["jupyterlab", "ipykernel", "matplotlib"]
HEADER = "# Made by docker/lock.py; do not edit.\n"


def compile_lock(wanted: str, *arguments: str) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".in") as source:
        source.write(wanted)
        source.flush()
        done = subprocess.run(
            ["uv", "pip", "compile", "--universal", "--python-version", "3.11", "-q",
             "--generate-hashes", "--no-header", "--no-annotate", *arguments, source.name],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
    return done.stdout


def cpu_lock(page: str) -> str:
    """torch's CPU build for Linux, CPython 3.11 to 3.14, from the page of PyTorch's index.

    Raises ValueError when the page lists none.
    """
    name = rf"torch-{re.escape(TORCH)}(?:%2B|\+)cpu-cp31[1-4]-cp31[1-4]-manylinux[0-9_a-z]*"
    wheels = rf"{name}_(?:x86_64|aarch64)\.whl#sha256=([0-9a-f]{{64}})"
    hashes = sorted(set(re.findall(wheels, page)))
    if not hashes:
        raise ValueError(f"{PYTORCH_CPU_INDEX} lists no CPU build of torch {TORCH}")
    return " \\\n".join([f"torch=={TORCH}+cpu", *(f"    --hash=sha256:{h}" for h in hashes)]) + "\n"


def variant_lock(packages: list[str]) -> str:
    return "".join(compile_lock(package + "\n", "--no-deps") for package in packages)


def problem_packages(problem: Path) -> list[str]:
    import tomllib

    variants = tomllib.loads((problem / "problem.toml").read_text(encoding="utf-8"))["variants"]
    return sorted({p for table in variants.values() for p in table.get("packages", ())})


def main() -> None:
    LOCKS.mkdir(exist_ok=True)
    requirements = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    dev = (ROOT / "requirements-dev.txt").read_text(encoding="utf-8")
    dev = dev.replace("-r requirements.txt\n", requirements)
    (LOCKS / "run.txt").write_text(HEADER + compile_lock(requirements), encoding="utf-8")
    (LOCKS / "dev.txt").write_text(HEADER + compile_lock(dev), encoding="utf-8")
    image = compile_lock("\n".join([requirements, *EXTRA]) + "\n")
    (LOCKS / "image.txt").write_text(HEADER + image, encoding="utf-8")
    torch = compile_lock(f"torch=={TORCH}\n", "--constraint", str(ROOT / "requirements.txt"))
    (LOCKS / "torch-cuda.txt").write_text(HEADER + torch, encoding="utf-8")
    with urllib.request.urlopen(f"{PYTORCH_CPU_INDEX}/torch/", timeout=60) as page:
        cpu = cpu_lock(page.read().decode("utf-8"))
    (LOCKS / "torch-cpu.txt").write_text(HEADER + cpu, encoding="utf-8")
    for problem in sorted(path.parent for path in (ROOT / "problems").glob("*/problem.toml")):
        lock = variant_lock(problem_packages(problem))
        (problem / "requirements-variants.txt").write_text(HEADER + lock, encoding="utf-8")


if __name__ == "__main__":
    main()
