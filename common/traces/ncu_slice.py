"""What is the least of an Nsight Compute report that still says the same? A raw-page CSV of it.

    from common.traces.ncu_slice import slice_ncu
    slice_ncu(source, target, largest_bytes=3 << 20)

The values are written in base units, as exactly as the source has them, and read back through
`common.traces.ncu`. What names a machine (host, process) is left empty. If all metrics of all
launches are too large, only those stay that a reading or a diff here uses; if that is still too
large, the first launches. The first line says where the slice comes from and what was cut: launches
and nanoseconds kept and left out, which add up to the source's. Tables inside a report (source
lines, instructions by opcode) have no place in a CSV and are always left out.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from common.errors import UsageError
from common.traces.byte_source import sha256_of
from common.traces.ncu import read_ncu
from common.traces.ncu_model import DURATION, Dim3, KernelLaunch, Metric, NcuReport, whole
from common.traces.ncu_names import CANDIDATES, OCCUPANCY_LIMITS
from common.traces.ncu_reading import PIPE

LARGEST_BYTES = 3 << 20
MARK = "==WORKLOG== "
SCHEMA = "worklog.slice/1"
FIXED = ("ID", "Process ID", "Process Name", "Host Name", "Kernel Name", "Context", "Stream",
         "Block Size", "Grid Size", "Device", "CC")  # fmt: skip
_USED = frozenset(
    [candidate.name for candidates in CANDIDATES.values() for candidate in candidates]
    + [*OCCUPANCY_LIMITS.values(), DURATION, "device__attribute_display_name"]
)


def slice_ncu(source: Path, target: Path, largest_bytes: int = LARGEST_BYTES) -> dict[str, Any]:
    """Write a gzipped CSV of at most `largest_bytes` to `target`; returns its provenance.

    Raises UsageError for what is no report, or where not even one launch fits.
    """
    report = read_ncu(source)
    about = {"schema": SCHEMA, "source": source.name, "source_bytes": source.stat().st_size,
             "source_sha256": sha256_of(source)}  # fmt: skip
    for names in (_all_metrics(report), [n for n in _all_metrics(report) if is_used(n)]):
        low, high = 0, len(report.launches)
        data, provenance = _packed(report, names, high, about)
        if len(data) <= largest_bytes:
            low = high
        elif names and not all(map(is_used, names)):
            continue  # fewer metrics before fewer launches
        while high - low > 1 or (low == 0 and len(data) > largest_bytes):
            middle = max(1, (low + high) // 2)
            data, provenance = _packed(report, names, middle, about)
            if len(data) <= largest_bytes:
                low = middle
            elif middle == 1:
                raise UsageError(f"{source}: not even one launch fits {largest_bytes} bytes")
            else:
                high = middle
        data, provenance = _packed(report, names, low, about)
        break
    target.write_bytes(data)
    return provenance


def is_used(name: str) -> bool:
    """Whether a reading or a diff here looks at the metric."""
    return name in _USED or name.startswith("launch__") or PIPE.fullmatch(name) is not None


def read_provenance(path: Path) -> dict[str, Any] | None:
    """What a slice says about its making; None for a file that is no slice."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8", "replace")
    first = text.partition("\n")[0]
    if not first.startswith(MARK):
        return None
    found: dict[str, Any] = json.loads(first.removeprefix(MARK))
    return found


def _all_metrics(report: NcuReport) -> list[str]:
    return list(dict.fromkeys(name for launch in report.launches for name in launch.metrics))


def _packed(
    report: NcuReport, names: Sequence[str], launches: int, about: Mapping[str, Any]
) -> tuple[bytes, dict[str, Any]]:
    kept = report.launches[:launches]
    total = _time_ns(report.launches)
    provenance = {
        **about,
        "launches": {"kept": launches, "cut": len(report.launches) - launches},
        "time_ns": {"kept": str(_time_ns(kept)), "cut": str(whole(total - _time_ns(kept)))},
        "metrics": {"kept": len(names), "cut": len(_all_metrics(report)) - len(names)},
        "left_out": "source lines and parts of metrics by key",
    }
    text = MARK + json.dumps(provenance) + "\n" + _table(kept, names)
    return gzip.compress(text.encode(), 9, mtime=0), provenance


def _time_ns(launches: Sequence[KernelLaunch]) -> Decimal:
    times = (launch.time_ns for launch in launches)
    return sum((Decimal(time) for time in times if time is not None), Decimal(0))


def _table(launches: Sequence[KernelLaunch], names: Sequence[str]) -> str:
    units = {name: _unit(launches, name) for name in names}
    stream = io.StringIO()
    writer = csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow([*FIXED, *names])
    writer.writerow([*("" for _ in FIXED), *units.values()])
    for launch in launches:
        device = "" if launch.device_id is None else str(launch.device_id)
        row = [
            str(launch.launch_id), str(launch.process_id or 0), "", "", launch.name,
            "" if launch.context is None else str(launch.context),
            "" if launch.stream is None else str(launch.stream),
            _dim3(launch.block), _dim3(launch.grid), device, launch.compute_capability or "",
        ]  # fmt: skip
        writer.writerow([*row, *(_cell(launch, name, units[name]) for name in names)])
    return stream.getvalue()


def _unit(launches: Sequence[KernelLaunch], name: str) -> str:
    """The base unit of a column. It is one: values of a model stand in base units."""
    metrics = (launch.metrics.get(name) for launch in launches)
    return next((m.unit for m in metrics if m is not None and m.unit), "")


def _cell(launch: KernelLaunch, name: str, unit: str) -> str:
    metric = launch.metrics.get(name)
    if metric is None:
        return ""
    if metric.value is None:
        return "nan" if name == DURATION else ""
    return _one_line(metric) if isinstance(metric.value, str) else str(metric.value)


def _one_line(metric: Metric) -> str:
    return " ".join(str(metric.value).split())


def _dim3(size: Dim3 | None) -> str:
    return "" if size is None else f"({size[0]}, {size[1]}, {size[2]})"
