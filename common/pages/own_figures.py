"""Are the figures that a problem draws itself what its evidence gives? `figures.py` beside its
worklog draws what no block of `common.pages.figures` can; this writes and compares.

`figures(problem)` of that module returns file name -> SVG, from recorded evidence alone; the files
lie in the problem's folder `figures/`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path

from common.contract.problem import Problem, root
from common.recording.run_folder import write_text


def drawn(problem: Problem) -> Mapping[Path, str]:
    """Place of every figure -> what should stand there; empty where the problem draws none."""
    if not (problem.folder / "figures.py").is_file():
        return {}
    if str(root()) not in sys.path:
        sys.path.append(str(root()))  # for `problems`, when worklog runs from elsewhere
    module = importlib.import_module(f"problems.{problem.name}.figures")
    found = module.figures(problem)
    return {problem.folder / "figures" / name: text for name, text in found.items()}


def stale(problem: Problem) -> list[Path]:
    """The figures that are missing or not what the evidence gives."""
    return [
        place
        for place, text in drawn(problem).items()
        if not place.is_file() or place.read_text(encoding="utf-8") != text
    ]


def draw(problem: Problem) -> list[Path]:
    """Write them; returns those that changed."""
    changed = stale(problem)
    texts = drawn(problem)
    for place in changed:
        place.parent.mkdir(exist_ok=True)
        write_text(place, texts[place])
    return changed
