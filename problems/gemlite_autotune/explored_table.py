"""A table of compiled configurations: what each needs, how it fills the GPU, what it is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from common.report.tables import Table

if TYPE_CHECKING:
    from problems.gemlite_autotune.explorer import Outcome

COLUMNS = (
    "configuration", "registers", "stack B", "shared B", "blocks/SM", "limited by", "occupancy",
    "blocks", "waves", "in flight KiB/SM", "loop", "tensor", "LDG", "LDGSTS", "output",
)  # fmt: skip
TEXT = ("configuration", "limited by", "output")


def explored_table(
    outcomes: Sequence[Outcome], marks: Mapping[object, str] | None = None, note: str = ""
) -> Table:
    """One row per configuration; one that gave no kernel or cannot launch says so in its row.

    `marks` puts a word behind the configuration of a job (e.g. "shipped winner").
    """
    rows = [_row(outcome, (marks or {}).get(outcome.job, "")) for outcome in outcomes]
    return Table(COLUMNS, tuple(rows), tuple(c for c in COLUMNS if c not in TEXT), note)


def _row(outcome: Outcome, mark: str) -> tuple[str, ...]:
    name = f"{outcome.job.config}{' ' + mark if mark else ''}"
    kernel = outcome.kernel
    if kernel is None:
        return (name, *[""] * (len(COLUMNS) - 2), f"no kernel: {outcome.failure}")
    used, found, classes = kernel.resources, kernel.metrics, kernel.by_class()
    can = bool(found["can_launch"])
    return (
        name,
        str(used["registers"]),
        f"{used['stack_bytes']:,}",
        f"{used['shared_bytes']:,}",
        str(found["blocks_per_sm"]),
        " and ".join(found["limiter"]) or "nothing",
        f"{100 * found['occupancy']:.0f} %",
        f"{found['grid_blocks']:,}",
        f"{found['waves']:.2f}" if can else "",
        f"{found['in_flight_bytes_per_sm'] / 1024:.0f}" if can else "",
        str(kernel.loop_instructions),
        str(classes.get("tensor", 0)),
        str(kernel.count("LDG")),
        str(kernel.count("LDGSTS")),
        {"none": "stored", "red": "RED", "compare-and-swap": "CAS loop"}.get(
            found["atomics"], found["atomics"]
        )
        if can
        else f"cannot launch: {found['refused']}",
    )
