"""What does `worklog show` print for each kind of file? One function per kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from common.report.compiled_page import compiled_text
from common.report.memory_page import memory_text
from common.report.ncu_page import ncu_text
from common.report.tables import printable
from common.report.trace_page import trace_text

Page = Callable[[dict[str, Any]], str]


def _for_a_terminal(page: Page) -> Page:
    """Whatever a file holds, or is called: it is shown, never obeyed."""
    return lambda summary: "\n".join(map(printable, page(summary).split("\n")))


# A kind of file (`Format.kind`) adds its page here.
PAGES: dict[str, Page] = {
    kind: _for_a_terminal(page)
    for kind, page in {
        "trace": trace_text,
        "ncu": ncu_text,
        "memory": memory_text,
        "compiled": compiled_text,
    }.items()
}
