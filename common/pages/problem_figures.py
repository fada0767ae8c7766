"""Which figures does a problem draw itself? Those of `figures(problem)` in its `figures.py`.

    def figures(problem: Problem) -> dict[str, str]:      # {"ranks.svg": "<svg …"}, from recorded/

Drawn anew they must be, byte for byte, the files in `figures/`; a page shows them as images with
their finding in the line below. Figures of the common kinds need no code: see `figure_blocks`.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

from common.contract.problem import Problem, root
from common.errors import WorklogError
from common.pages.finding import STALE, Finding, line_with
from common.pages.markdown import GENERATED, blanked, links
from common.pages.text_rules import check_captions
from common.recording.run_folder import write_text


def own_figures(problem: Problem) -> tuple[dict[str, str], list[Finding]]:
    """File name -> content of every figure of `figures.py`, and why some cannot be drawn."""
    path = problem.folder / "figures.py"
    if not path.exists():
        return {}, []
    name = f"_figures_of_{problem.name}"
    kept = list(sys.path)
    sys.path[:0] = [str(root()), str(problem.folder)]
    try:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        if not hasattr(module, "figures"):
            message = "has no function figures(problem) -> {file: SVG}; add it, so that it is drawn"
            return {}, [Finding(path, 1, message)]
        drawn = {str(file): str(content) for file, content in module.figures(problem).items()}
    except WorklogError as error:
        return {}, [Finding(path, line_with(path, r"^def figures\("), str(error))]
    except Exception as error:  # any code of a problem: a finding, not the end of the check
        message = f"cannot draw its figures ({type(error).__name__}: {error}); mend it"
        return {}, [Finding(path, line_with(path, r"^def figures\("), " ".join(message.split()))]
    finally:
        sys.path[:] = kept
        sys.modules.pop(name, None)
    return drawn, []


def check_own_figures(
    problem: Problem, page: Path, text: str, by_blocks: set[Path]
) -> list[Finding]:
    """Figures on disk are what `figures.py` draws; a page shows no other, and none is left over."""
    drawn, findings = own_figures(problem)
    if findings:
        return findings
    folder = problem.folder / "figures"
    for name, content in drawn.items():
        place = folder / name
        line = line_with(page, re.escape(f"](figures/{name})"))
        if not place.is_file():
            findings.append(Finding(page, line, f"figure {name} is not there; {STALE}"))
        elif place.read_bytes() != content.encode():
            message = f"figure {name} is stale or was edited by hand; {STALE}"
            findings.append(Finding(page, line, message))
    shown = set()
    outside = blanked(text, GENERATED)
    for link in links(outside):
        name = link.target.removeprefix("figures/")
        if not link.is_image or name == link.target:
            continue
        shown.add(name)
        if name not in drawn:
            message = f"nothing draws {link.target}; draw it in figures.py or by a figure block"
            findings.append(Finding(page, link.line, message))
    ends = [m.end() for m in re.finditer(r"^!\[[^\n]*\]\(figures/[^\n]*$", outside, re.MULTILINE)]
    findings += check_captions(page, text, ends)
    for extra in sorted(folder.glob("*")):
        known = extra in by_blocks or extra.name in drawn or f"figures/{extra.name}" in text
        if not known and f"{problem.name}/figures/{extra.name}" not in _readme():
            message = "nothing draws and no page shows this file; draw it or remove it"
            findings.append(Finding(extra, 1, message))
    return findings


def write_own_figures(problem: Problem) -> tuple[list[Path], list[Finding]]:
    """Draw what is absent or another; returns what was written and what could not be drawn."""
    drawn, findings = own_figures(problem)
    changed = []
    for name, content in drawn.items():
        place = problem.folder / "figures" / name
        if not place.is_file() or place.read_bytes() != content.encode():
            place.parent.mkdir(exist_ok=True)
            write_text(place, content)
            changed.append(place)
    return changed, findings


def _readme() -> str:
    path = root() / "README.md"
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
