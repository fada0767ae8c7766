"""What must hold of every case, whatever is in the file?

1. Nothing but the package's own errors (`WorklogError`), in one line that ends in an action.
2. What nobody touched is found to the nanosecond or byte; where only counted changes were made,
   nothing else is found.
3. The totals are those of what was found.
4. On every fortieth case also: the page of `worklog show` and the difference to the undamaged file,
   which must close, with no control character in what goes to a terminal.
"""

from __future__ import annotations

import json
import os
import tempfile
import tracemalloc
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from fuzz.case import Case, Units

from common.diff.by_name import document
from common.diff.diff import compare_files
from common.errors import WorklogError
from common.report.diff_text import difference_text
from common.report.show import PAGES
from common.traces.compiled_kernel import CompiledKernel
from common.traces.formats import open_and_summarise
from common.traces.memory_snapshot import MemorySnapshot
from common.traces.model import Trace
from common.traces.ncu_model import NcuReport

THOROUGH_EVERY = 40


class Fault(AssertionError):
    """A case that was not handled as promised."""


def units_of(content: Any) -> Units:
    """What a reader found, in the same words as the cases'."""
    if isinstance(content, Trace):
        found: Units = Counter()
        for label, part in (("gpu", content.gpu), ("host", content.host)):
            names = [content.names[name] for name in part.name.tolist()]
            spent = part.duration_ns.tolist()
            found.update((f"{label}:{n}", ns) for n, ns in zip(names, spent, strict=True))
        return found
    if isinstance(content, MemorySnapshot):
        found = Counter(("segment", size) for size in content.segments.total_bytes.tolist())
        for events in content.events.values():
            for action, size in zip(events.action, events.bytes.tolist(), strict=True):
                found[f"event:{action}", size] += 1
        return found
    if isinstance(content, NcuReport):
        return Counter(
            (one.name, int(one.time_ns)) for one in content.launches if one.time_ns is not None
        )
    assert isinstance(content, CompiledKernel)
    return Counter({(opcode, count): 1 for opcode, count in content.instructions.items()})


def total_of(summary: dict[str, Any]) -> int | None:
    return summary.get("gpu_time_ns")


class Judge:
    """Reads cases from one file of a folder in memory. `outcomes` counts what became of them."""

    def __init__(self, good: dict[str, bytes]) -> None:
        self._stack = ExitStack()
        shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        folder = tempfile.TemporaryDirectory(prefix="worklog-fuzz-", dir=shared)
        self.folder = Path(self._stack.enter_context(folder))
        self.path = self.folder / "case"
        self.good = {}
        for name, data in good.items():
            self.good[name] = self.folder / f"good-{name.replace('/', '-')}"
            self.good[name].write_bytes(data)
        self.outcomes: Counter[str] = Counter()

    def close(self) -> None:
        self._stack.close()

    def judge(self, case: Case, thorough: bool = False) -> None:
        """Raises Fault."""
        self.path.write_bytes(case.data)
        try:
            found, content, summary = open_and_summarise(self.path)
        except WorklogError as error:
            self._refused(case, error)
            return
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            raise Fault(f"{type(error).__name__}: {str(error)[:300]}") from error
        self.outcomes[f"{case.format} read"] += 1
        if case.intact is not None:
            _compare(case, units_of(content))
        _closes(content, summary)
        if thorough:
            self._shown(found.kind, summary)
            self._compared(case)

    def _refused(self, case: Case, error: WorklogError) -> None:
        self.outcomes[f"{case.format} refused"] += 1
        text = str(error)
        check_refusal(text)
        if case.intact and not case.refusable:
            raise Fault(f"{sum(case.intact.values())} intact were refused: {text[:300]}")

    def _shown(self, kind: str, summary: dict[str, Any]) -> None:
        self.outcomes["shown"] += 1
        try:
            text = PAGES[kind](summary)
            json.dumps(summary)
        except Exception as error:
            raise Fault(f"show: {type(error).__name__}: {str(error)[:300]}") from error
        _terminal(text, "show")

    def _compared(self, case: Case) -> None:
        good = self.good.get(case.seed or case.format)
        if good is None:
            return
        for a, b in ((self.path, good), (good, self.path)):
            self.outcomes["compared"] += 1
            try:
                difference = compare_files(str(a), str(b))
                printed = difference_text(difference, top=10, width=100)
                document(difference)
            except WorklogError:
                continue
            except Exception as error:
                raise Fault(f"diff: {type(error).__name__}: {str(error)[:300]}") from error
            if difference.residual:
                raise Fault(f"diff: a residual of {difference.residual}")
            _terminal(printed, "diff")

    def peak_bytes(self, data: bytes) -> int:
        """What Python and NumPy held at most while this was read and summed up."""
        self.path.write_bytes(data)
        tracemalloc.start()
        try:
            open_and_summarise(self.path)
        except WorklogError:
            pass
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return peak


def check_refusal(text: str) -> None:
    """One line that ends in an action."""
    if "\n" in text or ";" not in text + (";" if "readable are" in text else ""):
        raise Fault(f"an error without a next action: {text[:300]}")


def _compare(case: Case, found: Units) -> None:
    assert case.intact is not None
    lost = case.intact - found
    if lost:
        raise Fault(f"intact and not read: {sorted(lost.items())[:4]} ({sum(lost.values())})")
    more = found - case.intact
    if case.exact and more:
        raise Fault(f"read and not there: {sorted(more.items())[:4]} ({sum(more.values())})")


def _closes(content: Any, summary: dict[str, Any]) -> None:
    if isinstance(content, Trace):
        total = sum(content.gpu.duration_ns.tolist())
        if summary["gpu_time_ns"] != total:
            raise Fault(f"gpu_time_ns is {summary['gpu_time_ns']}, the events' is {total}")
        for device in summary["devices"]:
            if device["span_ns"] != device["busy_ns"] + device["idle_ns"] or device["idle_ns"] < 0:
                raise Fault(f"span, busy and idle do not close: {device}")


def _terminal(text: str, where: str) -> None:
    odd = [c for c in text if not (c.isprintable() or c == "\n")]
    if odd:
        raise Fault(f"{where}: {odd[0]!r} would go to the terminal")
