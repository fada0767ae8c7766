"""Which wheels does a machine lack that has torch and no network? Their lock entries, with hashes.

    python docker/wheel_pins.py [--have NAME|FILE …] [--without NAME …] [--with triton] [PROBLEM …]

Prints a requirements file: what `worklog record` needs beside torch, and the library versions of
the problems' variants, as the locks of the images have them. What is named by --have (a package,
or a file as `pip freeze` prints it on that machine) is left out; so is what comes with torch,
unless --with asks for a variant's own.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common.setup_environment import lock_entries  # noqa: E402

# common/recording/offline.py refuses to start without these; the others are what they need.
NEEDED = ("msgspec", "nvtx", "numpy", "safetensors", "rich", "markdown-it-py", "mdurl", "pygments")
WITH_TORCH = ("torch", "triton")  # and only with it: another Triton would be another compiler


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def named(words: list[str]) -> set[str]:
    """Packages given by name, or by a file of `pip freeze` or `pip list --format=freeze`."""
    found = set()
    for word in words:
        path = Path(word)
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else [word]
        found |= {normal(re.split(r"[=@\s;]", line)[0]) for line in lines if line.strip()}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("problems", nargs="*", metavar="PROBLEM")
    parser.add_argument("--have", action="append", default=[])
    parser.add_argument("--without", action="append", default=[])
    parser.add_argument("--with", action="append", default=[], dest="wanted")
    chosen = parser.parse_args()
    known = sorted(path.parent.name for path in (ROOT / "problems").glob("*/problem.toml"))
    strange = [name for name in chosen.problems if name not in known]
    if strange:
        print(f"error: no problem {strange[0]!r}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    have, without = named(chosen.have), {normal(name) for name in chosen.without}
    without |= set(WITH_TORCH) - {normal(name) for name in chosen.wanted}
    lines = [
        entry.rstrip()
        for pin, entry in lock_entries(ROOT / "docker" / "locks" / "image.txt").items()
        if normal(pin.split("==")[0]) in set(NEEDED) - have - without
    ]
    for problem in chosen.problems or known:
        folder = ROOT / "problems" / problem
        table = tomllib.loads((folder / "problem.toml").read_text(encoding="utf-8"))
        packages = {p for v in table["variants"].values() for p in v.get("packages", ())}
        for pin, entry in lock_entries(folder / "requirements-variants.txt").items():
            # A variant's library must be of its version: that the machine has another is no help.
            if pin in packages and normal(pin.split("==")[0]) not in without:
                lines.append(entry.rstrip())
    print("\n".join(dict.fromkeys(lines)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
