"""How does a problem begin? As a small example that runs, has an image and passes the checks.

What every problem has alike (Dockerfile and scripts) is taken from a problem that is there, so that
all images keep their first stage in common; the rest comes from `templates/`.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from common.contract.problem import problem_names, root
from common.errors import PreconditionError, UsageError
from common.pages.check import render

NAME = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")  # a folder, a Python package, an image's tag
TEMPLATES = Path(__file__).parent / "templates"
OF_A_PROBLEM = ("WORKLOG.md", "problem.toml", "predictions.toml", "repro.py")
IN_COMMON = ("Dockerfile", "run.sh", "capture_nsys.sh", "capture_ncu.sh")
BAKE = Path("docker/docker-bake.hcl")
LOCK = "requirements-variants.txt"
LOCK_HEADER = "# Made by docker/lock.py; do not edit.\n"
MATRIX = re.compile(r"(matrix\s+= \{ problem = \[)(.*?)(\] \})")


def make_problem(name: str) -> list[Path]:
    """Write `problems/NAME` and enter it where problems are listed; returns what was written."""
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} names a folder, a package and an image; use e.g. slow_softmax")
    folder = root() / "problems" / name
    if folder.exists():
        raise UsageError(f"{folder} exists already; choose another name")
    model = _model()
    bake = root() / BAKE
    entered = _entered(bake.read_text(encoding="utf-8"), name) if bake.exists() else None
    today = datetime.now(UTC).date().isoformat()
    # Made beside and renamed: a folder that is there is whole.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}.") as place:
        made = Path(place) / name
        made.mkdir()
        for file in OF_A_PROBLEM:
            text = (TEMPLATES / file).read_text(encoding="utf-8")
            text = text.replace("@NAME@", name).replace("@DATE@", today)
            (made / file).write_text(text, encoding="utf-8")
        for file in IN_COMMON:
            shutil.copy(model / file, made / file)  # with its permission to be run
            text = (made / file).read_text(encoding="utf-8").replace(model.name, name)
            (made / file).write_text(text, encoding="utf-8")
        (made / LOCK).write_text(LOCK_HEADER, encoding="utf-8")
        made.rename(folder)
    written = [folder / file for file in sorted([*OF_A_PROBLEM, *IN_COMMON, LOCK])]
    if entered is not None:
        bake.write_text(entered, encoding="utf-8")
        written.append(bake)
    changed, _ = render([name])  # its own blocks, and the tables that list all problems
    return written + [path for path in changed if path not in written]


def _model() -> Path:
    """A problem whose Dockerfile and scripts can be taken over."""
    for name in problem_names():
        folder = root() / "problems" / name
        if all((folder / file).is_file() for file in IN_COMMON):
            return folder
    raise PreconditionError(
        f"no problem under {root()} has {', '.join(IN_COMMON)} to begin from; "
        "run this in a checkout of the repository or set WORKLOG_ROOT to one"
    )


def _entered(text: str, name: str) -> str:
    """docker-bake.hcl with one more problem."""
    match = MATRIX.search(text)
    if match is None:
        raise PreconditionError(f"{BAKE} has no matrix of problems; add one by hand")
    names = sorted({*re.findall(r'"([^"]+)"', match[2]), name})
    listed = ", ".join(f'"{each}"' for each in names)
    return text[: match.start()] + match[1] + listed + match[3] + text[match.end() :]
