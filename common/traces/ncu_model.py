"""What did Nsight Compute measure? One `KernelLaunch` per profiled launch, with exact values.

Values stand in base units (ns, byte, hz, %), exact to what the file says; what a CSV printed is
kept beside. `None` is a metric that was asked for and has no value: not collected, or NaN.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

Number = int | Decimal
Dim3 = tuple[int, int, int]
DURATION = "gpu__time_duration.sum"


@dataclass(frozen=True)
class Metric:
    """One value. `printed` and `printed_unit` are a CSV's own text, None in reports.

    `resolution` is the value of the last printed digit in the base unit, None where the value is
    as the profiler stored it.
    """

    value: Number | str | None
    unit: str
    printed: str | None = None
    printed_unit: str | None = None
    resolution: Decimal | None = None

    @property
    def number(self) -> Number | None:
        return None if isinstance(self.value, str) else self.value


@dataclass(frozen=True)
class KernelLaunch:
    """One launch in the order of the file.

    `launch_id` is ncu's ID. `instances` holds the parts of a few metrics by key, e.g. instructions
    executed by opcode (only in reports).
    """

    launch_id: int
    name: str  # demangled, as the file has it
    base_name: str  # the function alone: no namespaces, template arguments or parameters
    metrics: Mapping[str, Metric]
    process_id: int | None = None
    process_name: str | None = None
    device_id: int | None = None
    device_name: str | None = None
    compute_capability: str | None = None  # "8.6"
    grid: Dim3 | None = None
    block: Dim3 | None = None
    context: int | None = None
    stream: int | None = None
    instances: Mapping[str, Mapping[str, Number]] | None = None

    def number(self, name: str) -> Number | None:
        """The value of a metric, None where it was not collected or is no number."""
        metric = self.metrics.get(name)
        return None if metric is None else metric.number

    @property
    def time_ns(self) -> Number | None:
        """gpu__time_duration: an int in reports; from a CSV exact to the printed precision."""
        return self.number(DURATION)


@dataclass(frozen=True)
class NcuReport:
    """One file. `rows` and `columns` are those of a CSV without header and units, else 0."""

    kind: Literal["report", "raw", "details"]
    launches: tuple[KernelLaunch, ...]
    warnings: tuple[str, ...] = ()
    rows: int = 0
    columns: int = 0

    @property
    def total_ns(self) -> Number | None:
        """The durations of all launches that have one; None when none has."""
        known = [launch.time_ns for launch in self.launches if launch.time_ns is not None]
        return whole(sum(map(Decimal, known), Decimal(0))) if known else None


def whole(value: Decimal) -> Number:
    """An int where the value is one: sums of nanoseconds stay integers."""
    return int(value) if value == value.to_integral_value() else value


_ANONYMOUS = re.compile(r"\(anonymous namespace\)|<unnamed>|\{anonymous\}")
_OPERATOR_CALL = re.compile(r"operator ?\(\)")


def base_name(demangled: str) -> str:
    """The function's own name: `void ns::f<(int)4>(float *)` gives `f`.

    Text that is no C++ signature (a Triton kernel's name) is returned as it is.
    """
    text = _OPERATOR_CALL.sub("operator__call", _ANONYMOUS.sub("_", demangled))
    kept: list[str] = []
    depth = 0
    for i, char in enumerate(text):
        if char == "<":
            depth += 1
        elif char == ">" and depth and text[i - 1] != "-":
            depth -= 1
        elif char == "(" and depth == 0:
            break
        elif depth == 0:
            kept.append(char)
    words = "".join(kept).strip().split(" ")
    name = words[-1].rsplit("::", 1)[-1].lstrip("*&")
    return name.replace("operator__call", "operator()") or demangled
