"""Which files exactly may an image install? Writes the locks: every package with all its hashes.

    python docker/lock.py         needs uv (https://docs.astral.sh/uv) and a package index

A lock lists the hash of every file that its index has of a version, so that it holds on other
processors and Python versions, and for a wheel from a local folder as long as it is the published
one. Run it after any change of requirements.txt, of the pinned torch, or of a variant's packages;
a test compares the locks with those.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "docker" / "locks"
sys.path.insert(0, str(ROOT))

from common.setup_environment import TORCH  # noqa: E402

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


def variant_lock(packages: list[str]) -> str:
    return "".join(compile_lock(package + "\n", "--no-deps") for package in packages)


def problem_packages(problem: Path) -> list[str]:
    import tomllib

    variants = tomllib.loads((problem / "problem.toml").read_text(encoding="utf-8"))["variants"]
    return sorted({p for table in variants.values() for p in table.get("packages", ())})


def main() -> None:
    LOCKS.mkdir(exist_ok=True)
    requirements = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    image = compile_lock("\n".join([requirements, *EXTRA]) + "\n")
    (LOCKS / "image.txt").write_text(HEADER + image, encoding="utf-8")
    torch = compile_lock(f"torch=={TORCH}\n", "--constraint", str(ROOT / "requirements.txt"))
    (LOCKS / "torch-cuda.txt").write_text(HEADER + torch, encoding="utf-8")
    for problem in sorted(path.parent for path in (ROOT / "problems").glob("*/problem.toml")):
        lock = variant_lock(problem_packages(problem))
        (problem / "requirements-variants.txt").write_text(HEADER + lock, encoding="utf-8")


if __name__ == "__main__":
    main()
