"""Where does a picture stand? A drawing of recorded evidence, with its own title as its text."""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree import ElementTree

from common.contract.problem import Problem
from common.errors import UsageError

TITLE = "{http://www.w3.org/2000/svg}title"


def drawing_block(problem: Problem, options: Mapping[str, str]) -> str:
    """`figures/NAME.svg`, drawn from evidence `run`. UsageError where it is missing or no SVG."""
    name = options["name"]
    path = problem.folder / "figures" / f"{name}.svg"
    if options["run"] not in problem.evidence:
        known = ", ".join(problem.evidence)
        raise UsageError(f"there is no evidence {options['run']!r}; there are: {known}")
    try:
        title = ElementTree.parse(path).getroot().findtext(TITLE)
    except (OSError, ElementTree.ParseError) as error:
        raise UsageError(f"figures/{name}.svg cannot be read ({error}); draw it anew") from error
    if not title:
        raise UsageError(f"figures/{name}.svg has no title; draw it anew")
    return f"![{title.replace(']', ')').replace('[', '(')}](figures/{name}.svg)"
