"""The one way into a comparison: two names of files or runs in, one `Difference` out."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from os.path import isdir
from typing import TYPE_CHECKING

from msgspec.structs import replace

from common.diff.sides import RUN, Side, check_kinds, open_sides

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
    side_a, side_b = open_sides(a, b, _load)
    warnings = check_kinds(side_a, side_b)
    found = _WAYS[side_a.kind](side_a, side_b, by)
    return replace(found, warnings=(*warnings, *found.warnings))


def _load(side: Side) -> None:
    """Import what compares this kind of side: there is time while the other one is read."""
    for module in _NEEDS.get(side.kind, ()):
        import_module(module)


def _traces(a: Side, b: Side, by: str | None) -> Difference:
    from common.diff.comparable import overlap_warning
    from common.diff.findings import findings
    from common.diff.trace_diff import diff_traces
    from common.diff.verdict import judge_traces

    found = diff_traces(a.trace, b.trace, (a.summary, b.summary), judge_traces(a, b), by)
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
_NEEDS = {"trace": _FOR_TRACES, RUN: _FOR_TRACES}
_WAYS: dict[str, Callable[[Side, Side, str | None], Difference]] = {
    "trace": _traces,
    RUN: _traces,
    "ncu": _other("common.diff.metrics:diff_ncu"),
    "memory": _other("common.diff.memory:diff_memory"),
    "compiled": _other("common.diff.compiled:diff_compiled"),
}
