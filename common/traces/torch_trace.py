"""What did torch.profiler record? Reads its Chrome traces (.json, .json.gz) into columns.

Kineto prints timestamps in microseconds with three decimals; with an absolute epoch they have more
digits than a float holds, so numbers are kept as text until they are integer nanoseconds.
"""

from __future__ import annotations

import gzip
import zlib
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from common.errors import UsageError
from common.traces.model import Allocations, Spans, Trace

GPU_CATEGORIES = frozenset({"kernel", "gpu_memcpy", "gpu_memset", "memcpy", "memset"})
LAUNCH_CATEGORIES = frozenset({"cuda_runtime", "cuda_driver", "runtime"})
# `gpu_user_annotation` repeats a CPU range on the GPU's time line: no work of its own.
KEPT_CATEGORIES = GPU_CATEGORIES | LAUNCH_CATEGORIES | {"cpu_op", "operator", "user_annotation"}
LONGEST_NS = 1 << 61  # beyond this sums overflow; nothing real lasts 73 years


class _Event(msgspec.Struct, gc=False):
    ph: Any = ""
    name: Any = ""
    cat: Any = ""
    ts: msgspec.Raw = msgspec.Raw(b"")
    dur: msgspec.Raw = msgspec.Raw(b"")
    pid: Any = None
    tid: Any = None
    args: msgspec.Raw = msgspec.Raw(b"{}")


class _Device(msgspec.Struct, gc=False):
    name: Any = ""


class _File(msgspec.Struct, gc=False):
    traceEvents: list[_Event]
    deviceProperties: list[_Device] = []


class _Arguments(msgspec.Struct, gc=False):
    correlation: int | None = None
    device: int | None = None


class _Memory(msgspec.Struct, gc=False):
    bytes_: int | None = msgspec.field(default=None, name="Bytes")
    device_type: int = msgspec.field(default=0, name="Device Type")
    device_id: int = msgspec.field(default=-1, name="Device Id")


def read_bytes(path: Path) -> bytes:
    """The file's bytes, gunzipped if they are gzipped. Raises UsageError for what is no file."""
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except FileNotFoundError as error:
        raise UsageError(f"{path} does not exist; give the path of a trace") from error
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path} cannot be read ({error}); record or copy it again") from error


def nanoseconds(text: msgspec.Raw) -> int | None:
    """Exact integer nanoseconds of a decimal number of microseconds; None if it is no number."""
    try:
        value = Decimal(bytes(text).strip(b' "').decode("ascii"))
        scaled = value.scaleb(3)
    except (ArithmeticError, ValueError):
        return None
    if not scaled.is_finite() or abs(scaled) > LONGEST_NS:
        return None
    return int(scaled.to_integral_value())


def _fits(number: int) -> bool:
    return abs(number) <= LONGEST_NS


def read_torch_trace(path: Path) -> Trace:
    """Read a torch.profiler trace. Raises UsageError when it is none."""
    data = read_bytes(path)
    try:
        file = msgspec.json.decode(data, type=_File)
    except msgspec.MsgspecError as error:
        raise UsageError(
            f"{path} is no torch.profiler trace ({error}); give a file that "
            "torch.profiler's export_chrome_trace wrote"
        ) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is no readable JSON; give a torch.profiler trace") from error
    return _columns(file)


def _columns(file: _File) -> Trace:
    arguments = msgspec.json.Decoder(_Arguments)
    memory = msgspec.json.Decoder(_Memory)
    spans: list[tuple[str, int, int, str, str, int, int]] = []
    allocations: list[tuple[int, int, int, str]] = []
    unreadable = 0
    for event in file.traceEvents:
        category = str(event.cat).lower()
        if event.ph == "i" and event.name == "[memory]":
            try:
                detail = memory.decode(event.args)
            except msgspec.MsgspecError:
                detail = _Memory()
            time = nanoseconds(event.ts)
            if time is None or detail.bytes_ is None or not _fits(detail.bytes_):
                unreadable += 1
                continue
            device = detail.device_id if detail.device_type == 1 else -1
            device = device if _fits(device) else 0
            allocations.append((time, detail.bytes_, device, f"{event.pid}/{event.tid}"))
        elif event.ph == "X" and category in KEPT_CATEGORIES:
            start, length = nanoseconds(event.ts), nanoseconds(event.dur)
            if start is None or length is None or length < 0:
                unreadable += 1
                continue
            try:
                detail_ = arguments.decode(event.args)
            except msgspec.MsgspecError:
                detail_ = _Arguments()
            device = -1
            if category in GPU_CATEGORIES:  # a GPU event is one even where its id is unreadable
                device = detail_.device if detail_.device and _fits(detail_.device) else 0
                device = max(device, 0)
            correlation = detail_.correlation
            if correlation is None or not _fits(correlation):
                correlation = -1
            thread = f"{event.pid}/{event.tid}"
            spans.append((thread, start, -length, str(event.name), category, correlation, device))
    spans.sort(key=lambda span: span[:3])
    allocations.sort(key=lambda allocation: allocation[0])
    warnings = (f"{unreadable} events with unreadable times or sizes",) if unreadable else ()
    start_ns = np.array([span[1] for span in spans], dtype=np.int64)
    return Trace(
        Spans(
            name=tuple(span[3] for span in spans),
            category=tuple(span[4] for span in spans),
            thread=tuple(span[0] for span in spans),
            start_ns=start_ns,
            end_ns=start_ns - np.array([span[2] for span in spans], dtype=np.int64),
            correlation=np.array([span[5] for span in spans], dtype=np.int64),
            device=np.array([span[6] for span in spans], dtype=np.int64),
        ),
        Allocations(
            time_ns=np.array([a[0] for a in allocations], dtype=np.int64),
            delta_bytes=np.array([a[1] for a in allocations], dtype=np.int64),
            device=np.array([a[2] for a in allocations], dtype=np.int64),
            thread=tuple(a[3] for a in allocations),
        ),
        gpu_names=tuple(str(device.name) for device in file.deviceProperties),
        warnings=warnings,
    )
