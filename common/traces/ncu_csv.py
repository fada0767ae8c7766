"""What does the text that `ncu --csv` prints hold? The raw page and the details page.

raw      one row per launch, one column per metric; the second row holds the units.
details  one row per launch and metric (also `--page details --print-metric-name name`), with rows
         of rule texts between.

The text is a terminal's: lines of ncu (==PROF==, ==WARNING==) and of the program itself stand
before the header and between the rows.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from common.errors import UsageError
from common.traces.ncu_model import DURATION, Dim3, KernelLaunch, Metric, NcuReport, base_name
from common.traces.ncu_names import name_of_label
from common.traces.ncu_units import printed_metric

_HEADER = re.compile(r'^"?ID"?,"?Process ID"?,')
_ROW = re.compile(r'^("?\d+"?,"?\d+"?,|"",|,)')
# A text of a rule may hold line breaks; more lines than this are a quote that was never closed.
_MOST_LINES_OF_A_ROW = 40
_DIM3 = re.compile(r"^\((\d{1,18}), ?(\d{1,18}), ?(\d{1,18})\)$", re.ASCII)
_FIXED = (
    *("ID", "Process ID", "Process Name", "Host Name", "Kernel Name", "Context", "Stream"),
    *("Block Size", "Grid Size", "Device", "CC"),
)
_NEXT = "print the report again with `ncu --import REPORT --page raw --csv`"


@dataclass
class _Counts:
    """What a reader must hear about."""

    foreign_lines: int = 0
    unreadable_rows: int = 0
    nan_durations: int = 0
    nan_metrics: int = 0
    assumed_units: int = 0
    conflicts: int = 0
    more: list[str] = field(default_factory=list)

    def warnings(self) -> tuple[str, ...]:
        texts = (
            (self.unreadable_rows, "rows cut short or unreadable, left out"),
            (self.foreign_lines, "lines between the rows that are not ncu's, left out"),
            (self.nan_durations, "launches without a duration (NaN), not in the total"),
            (self.nan_metrics, "other values that are NaN"),
            (self.assumed_units, "values without a unit, taken as base units (ns, byte, hz)"),
            (self.conflicts, "metrics given twice with different values, the first kept"),
        )
        return (*self.more, *(f"{text}: {count}" for count, text in texts if count))


def looks_like_csv(text: str) -> bool:
    return any(_HEADER.match(line) for line in text.splitlines())


def read_csv(text: str) -> NcuReport:
    """Read one or several pages, one after another. Raises UsageError when there is none."""
    counts = _Counts()
    launches: list[KernelLaunch] = []
    pages = list(_pages(text, counts))
    if not pages:
        raise UsageError(f"it holds no table of ncu; {_NEXT}")
    rows, kinds = 0, set()
    for header, body in pages:
        missing = {"ID", "Kernel Name"} - set(header)
        if missing:
            raise UsageError(f"its table has no column {sorted(missing)}; {_NEXT}")
        if "Metric Name" in header:
            if "Metric Value" not in header:
                raise UsageError(f"it is a summary over launches, without their values; {_NEXT}")
            if "Metric Unit" not in header:
                raise UsageError(f"its table has no column ['Metric Unit']; {_NEXT}")
            kinds.add("details")
            launches += _details(header, body, counts)
            rows += len(body)
        else:
            kinds.add("raw")
            found, units = _raw(header, body, counts)
            launches += found
            rows += len(body) - units
    if len(kinds) > 1:
        raise UsageError(f"it holds raw and details pages one after another; {_NEXT}")
    if not launches:
        raise UsageError(f"its table has no launch; {_NEXT}")
    without = sum(launch.time_ns is None for launch in launches) - counts.nan_durations
    if without > 0:
        counts.more.append(f"launches without {DURATION}, not in the total: {without}")
    return NcuReport(
        kind="details" if kinds == {"details"} else "raw",
        launches=tuple(launches),
        warnings=counts.warnings(),
        rows=rows,
        columns=len(pages[0][0]),
    )


def _pages(text: str, counts: _Counts) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Header and rows of each table; a file that was appended to has several."""
    header: list[str] | None = None
    body: list[list[str]] = []
    for line in _logical_lines(text, counts):
        try:
            cells = next(csv.reader([line], strict=True))
        except (csv.Error, StopIteration):
            counts.unreadable_rows += 1
            continue
        if _HEADER.match(line):
            if header is not None:
                yield header, body
            header, body = cells, []
        else:
            body.append(cells)
    if header is not None:
        yield header, body


def _logical_lines(text: str, counts: _Counts) -> Iterator[str]:
    """The table's lines, those of one quoted text joined, without what is not the table's."""
    waiting: list[str] = []
    started = False
    for line in text.splitlines():
        begins = bool(_HEADER.match(line) or _ROW.match(line))
        if waiting and (begins or len(waiting) > _MOST_LINES_OF_A_ROW):
            counts.unreadable_rows += 1
            waiting = []
        if not waiting and not begins:
            is_ncus = line.startswith("==") or not line.strip()
            counts.foreign_lines += started and not is_ncus
            continue
        if not waiting and not started:
            if not _HEADER.match(line):
                continue
            started = True
        if waiting and line.startswith("=="):
            continue
        waiting.append(line)
        joined = "\n".join(waiting)
        if joined.count('"') % 2 == 0:
            yield joined
            waiting = []
    counts.unreadable_rows += bool(waiting)


def _places(header: list[str]) -> dict[str, int]:
    """Where each column stands; the first of those with one name."""
    return {name: i for i, name in reversed([*enumerate(header)])}


def _raw(
    header: list[str], body: list[list[str]], counts: _Counts
) -> tuple[list[KernelLaunch], int]:
    at = _places(header)
    units: list[str] = []
    has_units = 0
    launches: list[KernelLaunch] = []
    for cells in body:
        if len(cells) > at["ID"] and not cells[at["ID"]].strip():
            units, has_units = cells, has_units + 1
            continue
        if len(cells) <= max(at["ID"], at["Kernel Name"]) or _integer(cells[at["ID"]]) is None:
            counts.unreadable_rows += 1
            continue
        if len(cells) < len(header):
            counts.more.append(f"launch {cells[at['ID']]} is cut after {len(cells)} columns")
        metrics: dict[str, Metric] = {}
        for i, name in enumerate(header[: len(cells)]):
            if name not in _FIXED and name not in metrics:
                unit = units[i] if i < len(units) else ""
                metrics[name] = _metric(name, cells[i], unit, counts)
        launches.append(_launch(header, cells, metrics))
    return launches, has_units


def _details(header: list[str], body: list[list[str]], counts: _Counts) -> list[KernelLaunch]:
    at = _places(header)
    needed = max(
        at["ID"], at["Kernel Name"], at["Metric Name"], at["Metric Value"], at["Metric Unit"]
    )
    first: dict[tuple[str, str, str], list[str]] = {}
    metrics: dict[tuple[str, str, str], dict[str, Metric]] = {}
    for cells in body:
        if len(cells) <= needed or _integer(cells[at["ID"]]) is None:
            counts.unreadable_rows += 1
            continue
        process = cells[at["Process ID"]] if "Process ID" in at else ""
        key = (process, cells[at["ID"]], cells[at["Kernel Name"]])
        first.setdefault(key, cells)
        own = metrics.setdefault(key, {})
        label = cells[at["Metric Name"]]
        if not label:  # the text of a rule
            continue
        section = cells[at["Section Name"]] if "Section Name" in at else ""
        name = name_of_label(section, label)
        if name in own and own[name].printed == cells[at["Metric Value"]]:
            continue  # the same metric in two sections
        counts.conflicts += name in own
        if name not in own:
            unit = cells[at["Metric Unit"]]
            own[name] = _metric(name, cells[at["Metric Value"]], unit, counts)
    return [_launch(header, cells, metrics[key]) for key, cells in first.items()]


def _metric(name: str, text: str, unit: str, counts: _Counts) -> Metric:
    metric, is_nan, unit_was_missing = printed_metric(name, text, unit)
    if is_nan and name == DURATION:
        counts.nan_durations += 1
    else:
        counts.nan_metrics += is_nan
    counts.assumed_units += unit_was_missing
    return metric


def _launch(header: list[str], cells: list[str], metrics: dict[str, Metric]) -> KernelLaunch:
    row = {name: cells[i] for name, i in _places(header).items() if i < len(cells)}
    name = row["Kernel Name"]
    device_name = metrics.get("device__attribute_display_name")
    return KernelLaunch(
        launch_id=int(row["ID"]),
        name=name,
        base_name=base_name(name),
        metrics=metrics,
        process_id=_integer(row.get("Process ID")),
        process_name=row.get("Process Name") or None,
        device_id=_integer(row.get("Device")),
        device_name=device_name.printed or None if device_name else None,
        compute_capability=row.get("CC") or None,
        grid=_dim3(row.get("Grid Size")),
        block=_dim3(row.get("Block Size")),
        context=_integer(row.get("Context")),
        stream=_integer(row.get("Stream")),
    )


def _integer(text: str | None) -> int | None:
    """A whole number; None for other text, also where Python's `isdigit` says yes ("²")."""
    known = text is not None and text.isascii() and text.isdigit() and len(text) < 20
    return int(text) if known and text else None


def _dim3(text: str | None) -> Dim3 | None:
    found = _DIM3.match(text or "")
    return (int(found[1]), int(found[2]), int(found[3])) if found else None
