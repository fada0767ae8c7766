"""The one way into a comparison: two names of files or runs in, one `Difference` out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from os.path import isdir
from typing import TYPE_CHECKING

from msgspec.structs import replace

from common.diff.sides import RUN, TRACE, Side, check_kinds, open_sides

if TYPE_CHECKING:
    from common.diff.difference import Difference


def compare_files(a: str, b: str, by: str | None = None) -> Difference:
    """Compare what two names stand for: files of a profiler, RUN#VARIANT, or folders of ranks.

    Raises UsageError, in one line, for what cannot be read or compared and for an unknown `by`.
    """
    if isdir(a) and isdir(b):
        from common.diff.rank_files import are_rank_folders

        if are_rank_folders(a, b):
            from common.diff.rank_diff import compare_ranks

            return compare_ranks(a, b, by)
    side_a, side_b = open_sides(a, b, partial(_prepare, by))
    warnings = check_kinds(side_a, side_b)
    found = _WAYS[side_a.kind](side_a, side_b, by)
    return replace(found, warnings=(*warnings, *found.warnings))


def _prepare(by: str | None, side: Side) -> Side:
    """What a comparison needs of one side alone: there is time while the other one is read."""
    for module in _NEEDS.get(side.kind, ()):
        import_module(module)
    if side.kind not in (TRACE, RUN) or by not in _BY_KERNEL or not side.trace.has_gpu_events:
        return side
    from common.diff.kernel_rows import prepare

    return replace(side, ready=prepare(side.trace))


def _traces(a: Side, b: Side, by: str | None) -> Difference:
    from common.diff.comparable import overlap_warning
    from common.diff.findings import findings
    from common.diff.trace_diff import diff_traces
    from common.diff.verdict import judge_traces

    found = diff_traces(
        a.trace, b.trace, (a.summary, b.summary), judge_traces(a, b), by, (a.ready, b.ready)
    )
    warning = overlap_warning(a, b)
    return replace(
        found,
        source=RUN if a.kind == b.kind == RUN else found.source,
        notes=findings(found),
        warnings=(*found.warnings, *((warning,) if warning else ())),
    )


def _other(place: str) -> Callable[[Side, Side, str | None], Difference]:
    def compare(a: Side, b: Side, by: str | None) -> Difference:
        module, name = place.split(":")
        found: Difference = getattr(import_module(module), name)(
            a.content, b.content, a.summary, b.summary, by
        )
        return found

    return compare


_FOR_TRACES = (
    "common.diff.comparable",
    "common.diff.findings",
    "common.diff.trace_diff",
    "common.diff.verdict",
)
_BY_KERNEL = (None, "kernel", "operator")
_NEEDS = {TRACE: _FOR_TRACES, RUN: _FOR_TRACES}
_WAYS: dict[str, Callable[[Side, Side, str | None], Difference]] = {
    TRACE: _traces,
    RUN: _traces,
    "ncu": _other("common.diff.metrics:diff_ncu"),
    "memory": _other("common.diff.memory:diff_memory"),
    "compiled": _other("common.diff.compiled:diff_compiled"),
}
