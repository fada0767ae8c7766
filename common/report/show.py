"""What does `worklog show` print for each kind of file? One function per kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from common.report.compiled_page import compiled_text
from common.report.memory_page import memory_text
from common.report.ncu_page import ncu_text
from common.report.trace_page import trace_text

# A kind of file (`Format.kind`) adds its page here.
PAGES: dict[str, Callable[[dict[str, Any]], str]] = {
    "trace": trace_text,
    "ncu": ncu_text,
    "memory": memory_text,
    "compiled": compiled_text,
}
