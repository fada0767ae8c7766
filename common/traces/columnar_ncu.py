"""Which tables does a report of Nsight Compute become? Launches, and every metric as a row."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

import pyarrow as pa

from common.traces.columnar import Tables, repeated, texts
from common.traces.ncu_model import Dim3, KernelLaunch, NcuReport, Number

_INT64 = range(-(1 << 63), 1 << 63)


def ncu_tables(report: NcuReport) -> tuple[Tables, dict[str, object]]:
    """(tables, facts about the file). `launch` in the other tables is a `launch` of `launches`.

    A value stands in `value` as exact text, in `number` as the nearest float, and in `integer`
    where it is a whole number.
    """
    launches = report.launches
    metrics = [
        (at, name, metric)
        for at, launch in enumerate(launches)
        for name, metric in launch.metrics.items()
    ]
    parts = [
        (at, name, key, value)
        for at, launch in enumerate(launches)
        for name, own in (launch.instances or {}).items()
        for key, value in own.items()
    ]
    resolutions = [metric.resolution for _, _, metric in metrics]
    tables = {
        "launches": _launches(launches),
        "metrics": pa.table(
            {
                "launch": _whole(at for at, _, _ in metrics),
                "metric": repeated([name for _, name, _ in metrics]),
                **_values([metric.value for _, _, metric in metrics]),
                "unit": repeated([metric.unit for _, _, metric in metrics]),
                "printed": texts([metric.printed for _, _, metric in metrics]),
                "printed_unit": repeated([metric.printed_unit for _, _, metric in metrics]),
                "resolution": texts([None if r is None else str(r) for r in resolutions]),
            }
        ),
        "instances": pa.table(
            {
                "launch": _whole(at for at, _, _, _ in parts),
                "metric": repeated([name for _, name, _, _ in parts]),
                "key": repeated([str(key) for _, _, key, _ in parts]),
                **_values([value for _, _, _, value in parts]),
            }
        ),
        "warnings": pa.table({"says": texts(report.warnings)}),
    }
    return tables, {"format": f"ncu {report.kind}", "rows": report.rows, "columns": report.columns}


def _launches(launches: tuple[KernelLaunch, ...]) -> pa.Table:
    times = _values([launch.time_ns for launch in launches])
    columns = {
        "launch": _whole(range(len(launches))),
        "launch_id": _whole(launch.launch_id for launch in launches),
        "name": repeated([launch.name for launch in launches]),
        "base_name": repeated([launch.base_name for launch in launches]),
        "process": _whole(launch.process_id for launch in launches),
        "process_name": repeated([launch.process_name for launch in launches]),
        "device": _whole(launch.device_id for launch in launches),
        "device_name": repeated([launch.device_name for launch in launches]),
        "compute_capability": repeated([launch.compute_capability for launch in launches]),
        "context": _whole(launch.context for launch in launches),
        "stream": _whole(launch.stream for launch in launches),
        "duration_ns": times["integer"],
        "duration_ns_exact": times["value"],  # a CSV may print fractions of a nanosecond
    }
    shapes = {"grid": [x.grid for x in launches], "block": [x.block for x in launches]}
    for what, shape in shapes.items():
        for axis, letter in enumerate("xyz"):
            columns[f"{what}_{letter}"] = _whole(_axis(one, axis) for one in shape)
    return pa.table(columns)


def _axis(shape: Dim3 | None, axis: int) -> int | None:
    return None if shape is None else shape[axis]


def _whole(values: Iterable[int | None]) -> pa.Array:
    kept = [v if v is not None and v in _INT64 else None for v in values]
    return pa.array(kept, pa.int64())


def _values(values: list[Number | str | None]) -> dict[str, pa.Array]:
    numbers = [None if isinstance(value, str) else value for value in values]
    integers = [None if n is None or not _is_whole(n) else int(n) for n in numbers]
    return {
        "value": texts([None if value is None else _exact(value) for value in values]),
        "number": pa.array([None if n is None else float(n) for n in numbers], pa.float64()),
        "integer": _whole(integers),
    }


def _is_whole(number: Number) -> bool:
    return isinstance(number, int) or (number.is_finite() and number == number.to_integral_value())


def _exact(value: Number | str) -> str:
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
