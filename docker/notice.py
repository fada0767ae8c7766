"""Whose work is installed beside ours, under which licence? Writes NOTICE from what is installed.

    python docker/notice.py            writes NOTICE, in the environment that `./test.sh` made
    python docker/notice.py --check    exits with 1 where it is not current

Every package of requirements.txt, requirements-dev.txt and both builds of torch, with the licence
that its own metadata state. The CUDA build's packages are not installed on a CPU machine: they
are listed from their lock, and their licence is said to be in the package.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
HEADER = (
    "What is installed beside this project, and under which licence. Made by docker/notice.py; do "
    "not edit.\nNothing of it is part of this repository; LICENSE is that of the repository.\n"
)
NOT_HERE = "as stated in the package (not installed on a CPU machine)"


def pins(path: Path) -> dict[str, str]:
    return dict(PIN.findall(path.read_text(encoding="utf-8")))


def licence_of(name: str) -> str:
    """One line, from the package's own metadata, the most precise first."""
    try:
        about = metadata(name)
    except PackageNotFoundError:
        return NOT_HERE
    expression = about.get("License-Expression")
    classifiers = [
        text.rpartition(" :: ")[2]
        for text in about.get_all("Classifier") or []
        if text.startswith("License ::") and not text.endswith("OSI Approved")
    ]
    first = (about.get("License") or "").strip().splitlines()[:1]
    stated = expression or ", ".join(classifiers) or (first[0] if first else "")
    return stated or "see the licence files in the package"


def notice(root: Path = ROOT) -> str:
    parts = [HEADER]
    torch = pins(root / "docker" / "locks" / "torch-cuda.txt")
    run = pins(root / "requirements.txt")
    for title, packages in (
        ("For running", run),
        ("For the checks", pins(root / "requirements-dev.txt")),
        ("torch, the CPU build", {"torch": torch["torch"] + "+cpu"}),
        ("torch, the CUDA build, and what it brings",
         {name: version for name, version in torch.items() if name not in run}),
    ):  # fmt: skip
        rows = sorted(packages.items(), key=lambda row: row[0].lower())
        # The same text on every machine, also on one that has them.
        not_here = title.startswith("torch, the CUDA build")
        lines = [
            f"{name} {version}: {NOT_HERE if not_here and name != 'torch' else licence_of(name)}"
            for name, version in rows
        ]
        parts.append("\n".join([title, "-" * len(title), *lines]) + "\n")
    return "\n".join(parts)


def main() -> int:
    path, text = ROOT / "NOTICE", notice()
    if "--check" in sys.argv[1:]:
        current = path.exists() and path.read_text(encoding="utf-8") == text
        print("NOTICE is current" if current else "NOTICE is not current: docker/notice.py")
        return 0 if current else 1
    path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
