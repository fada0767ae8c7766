"""What does an Nsight Compute report (.ncu-rep) hold? Read through NVIDIA's `ncu_report`.

`ncu_report` is an optional extra and imported only here, in a process of its own
(`ncu_rep_process`). It reads a damaged report as an empty one, or as one with fewer launches, and
says nothing; or it ends the process. So the file's frame is checked first: "NVR", then
blocks of a length, a header and what the header says follows. What a whole file would hold is known
before NVIDIA's code sees it.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

from common.errors import PreconditionError, UsageError
from common.traces.ncu_model import DURATION, Dim3, KernelLaunch, Metric, NcuReport, Number, whole
from common.traces.ncu_names import OPCODES
from common.traces.ncu_rep_process import Extract, extract
from common.traces.ncu_units import base_unit
from common.traces.raw_file import RawFile

MAGIC = b"NVR\0"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"  # .ncu-repz, since ncu 2025.4
REQUIREMENT = "ncu-report==2026.3.1"
_RESULTS_FIELD, _PAYLOAD_FIELD = 2, 5  # of a block's header, found by walking real reports


def looks_like_report(data: bytes) -> bool:
    return data[:4] in (MAGIC, ZSTD_MAGIC)


@dataclass(frozen=True)
class Frame:
    """The blocks of a report: how many results they announce, and whether all are there."""

    results: int
    is_whole: bool


def frame(data: bytes) -> Frame:
    """Walk the blocks of an uncompressed report. `results` counts those in whole blocks."""
    results = 0
    at = 8 + int.from_bytes(data[4:8], "little")
    while at + 4 <= len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        header = data[at + 4 : at + 4 + size]
        fields = _numbers(header) if len(header) == size else None
        if not fields:
            return Frame(results, False)
        at += 4 + size + fields.get(_PAYLOAD_FIELD, 0)
        if at > len(data):
            return Frame(results, False)
        results += fields.get(_RESULTS_FIELD, 0)
    return Frame(results, at == len(data))


def _numbers(message: bytes) -> dict[int, int] | None:
    """The whole-number fields of a protobuf message; None when it is none."""
    out: dict[int, int] = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        wire = tag & 7
        if wire == 0:
            out[tag >> 3], at = _varint(message, at)
        elif wire == 2:
            size, at = _varint(message, at)
            at += size
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            return None
    return out if at == len(message) else None


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 70:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            break
    return value, at


def _module() -> ModuleType:
    try:
        import ncu_report
    except (ImportError, OSError) as error:
        raise PreconditionError(
            f"reading .ncu-rep needs NVIDIA's ncu-report ({error}): run `pip install "
            f"{REQUIREMENT}`, or print the report with `ncu --import REPORT --page raw --csv`"
        ) from error
    module: ModuleType = ncu_report
    return module


def read_report(path: Path, raw: RawFile) -> NcuReport:
    """Read a report whose bytes are `raw`. UsageError when nothing of it can be read."""
    found = frame(raw.data) if raw.data[:4] == MAGIC else None
    if found is not None and not found.is_whole and not found.results:
        raise UsageError("the report is cut short before its first launch; copy or record it again")
    warnings: list[str] = []
    with _as_plain_file(path, raw) as plain:
        # Of a report that is cut, the launch behind the last whole block has lost some metrics.
        cut = found is not None and not found.is_whole
        extracted = extract(plain, found.results if found is not None and cut else None)
    launches, unreadable = extracted.launches, extracted.unreadable
    if unreadable:
        warnings.append(f"unreadable launches, left out: {unreadable}")
    if not launches:
        raise UsageError("the report holds no launch; record it again, see `ncu`'s own output")
    if found is not None and not found.is_whole:
        warnings.append(f"the report is cut short; launches read before the cut: {len(launches)}")
    elif found is not None and len(launches) + unreadable < found.results:
        missing = found.results - len(launches) - unreadable
        warnings.append(f"results that ncu_report left out: {missing} of {found.results}")
    nan_durations = extracted.nan_durations
    if nan_durations:
        warnings.append(f"launches without a duration (NaN), not in the total: {nan_durations}")
    without = sum(launch.time_ns is None for launch in launches) - nan_durations
    if without:
        warnings.append(f"launches without {DURATION}, not in the total: {without}")
    if extracted.nan:
        warnings.append(f"other values that are NaN: {extracted.nan}")
    return NcuReport("report", launches, tuple(warnings))


def launches_of(report: Path, most: int | None) -> Extract:
    """What NVIDIA's reader makes of an uncompressed report. Only for a process of its own.

    Raises UsageError when it refuses the report, PreconditionError when it is not installed.
    """
    module = _module()
    counts = {"nan": 0, "nan_duration": 0}
    launches: list[KernelLaunch] = []
    unreadable = 0
    try:
        context = module.load_report(str(report))
        actions = list(_actions(context))[:most]
    except Exception as error:  # a SWIG module: its exceptions have no common type
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"ncu_report cannot read it ({reason}); copy or record it again"
        ) from error
    for i, action in enumerate(actions):
        try:
            launches.append(_launch(module, i, action, counts))
        except Exception:  # as above
            unreadable += 1
    return Extract(tuple(launches), unreadable, counts["nan"], counts["nan_duration"])


@contextlib.contextmanager
def _as_plain_file(path: Path, raw: RawFile) -> Iterator[Path]:
    """A file that NVIDIA's reader can open: itself, or its unpacked bytes for a moment."""
    with path.open("rb") as file:
        gzipped = file.read(4) not in (MAGIC, ZSTD_MAGIC)
    if not gzipped:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="worklog-") as folder:
        ending = ".ncu-rep" if raw.data[:4] == MAGIC else ".ncu-repz"
        plain = Path(folder) / f"report{ending}"
        plain.write_bytes(raw.data)
        yield plain


def _actions(context: Any) -> Iterator[Any]:
    for i in range(context.num_ranges()):
        of_range = context.range_by_idx(i)
        for j in range(of_range.num_actions()):
            yield of_range.action_by_idx(j)


def _launch(module: Any, number: int, action: Any, counts: dict[str, int]) -> KernelLaunch:
    metrics: dict[str, Metric] = {}
    for name in action.metric_names():
        metric = _metric(action.metric_by_name(name))
        if metric is None:  # NaN
            counts["nan_duration" if name == DURATION else "nan"] += 1
            metric = Metric(None, "")
        metrics[name] = metric

    def whole_number(name: str) -> int | None:
        metric = metrics.get(name)
        value = metric.number if metric else None
        return int(value) if value is not None else None

    def dim3(prefix: str) -> Dim3 | None:
        x, y, z = (whole_number(f"{prefix}_dim_{axis}") for axis in "xyz")
        return None if x is None or y is None or z is None else (x, y, z)

    major = whole_number("device__attribute_compute_capability_major")
    minor = whole_number("device__attribute_compute_capability_minor")
    device_name = metrics.get("device__attribute_display_name")
    demangled = str(action.name(module.IAction.NameBase_DEMANGLED) or action.name())
    return KernelLaunch(
        launch_id=number,
        name=demangled,
        base_name=str(action.name(module.IAction.NameBase_FUNCTION) or demangled),
        metrics=metrics,
        device_id=whole_number("launch__device_id"),
        device_name=str(device_name.value) if device_name and device_name.value else None,
        compute_capability=None if major is None or minor is None else f"{major}.{minor}",
        grid=dim3("launch__grid"),
        block=dim3("launch__block"),
        context=whole_number("launch__context_id"),
        stream=whole_number("launch__stream_id"),
        instances=_instances(action, (OPCODES,)),
    )


def _metric(metric: Any) -> Metric | None:
    """The metric in base units; None for NaN. A metric without a value has the value None."""
    unit, power = base_unit(str(metric.unit() or ""))
    if not metric.has_value():
        return Metric(None, unit)
    value = metric.value()
    if isinstance(value, str):
        return Metric(value, unit)
    number = _exact(value)
    if number is None:
        return None
    return Metric(whole(Decimal(number).scaleb(power)) if power else number, unit)


def _exact(value: int | float) -> Number | None:
    """The number as stored: shortest text that gives a float back. None for NaN and infinity."""
    if isinstance(value, int):
        return value
    return whole(Decimal(repr(value))) if math.isfinite(value) else None


def _instances(action: Any, names: tuple[str, ...]) -> dict[str, dict[str, Number]]:
    out: dict[str, dict[str, Number]] = {}
    for name in names:
        metric = action.metric_by_name(name)
        if metric is None or not metric.num_instances() or not metric.has_correlation_ids():
            continue
        keys = metric.correlation_ids()
        values = (
            (str(keys.value(i)), _exact(metric.value(i))) for i in range(keys.num_instances())
        )
        out[name] = {key: value for key, value in values if value is not None}
    return out
