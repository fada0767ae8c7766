"""Which reader is right for a file? Told by its content, never by its name; all may be gzipped."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from common.errors import UsageError
from common.traces.byte_source import ByteSource
from common.traces.compiled_kernel import recognises as recognises_compiled
from common.traces.model import Trace

HEAD_BYTES = 4096


class Format(msgspec.Struct, frozen=True):
    """One kind of file. `read` and `summarise` are "module:function", imported when needed.

    read(path: Path) -> what the file holds;  summarise(that, path) -> dict that is ready for JSON.
    """

    name: str
    says: str  # for the list of what is readable
    kind: (
        str  # "trace", "ncu", "memory" or "compiled": which values can be compared with each other
    )
    recognises: Callable[[bytes], bool]  # by the first HEAD_BYTES bytes, gunzipped
    read: str
    summarise: str


def _is_json(head: bytes) -> bool:
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")


_SUMMARY = "common.traces.summary:summarise_trace"
_formats: list[Format] = [
    Format(  # before torch's traces: it is JSON too, with a schema in its first line
        "compiled", "compiled kernels (.json)", "compiled", recognises_compiled,
        "common.traces.compiled_kernel:read_compiled",
        "common.traces.compiled_kernel:summarise_compiled",
    ),
    Format(
        "torch", "torch.profiler traces (.json)", "trace", _is_json,
        "common.traces.torch_trace:read_torch_trace", _SUMMARY,
    ),
    Format(
        "nsys", "Nsight Systems exports (.sqlite)", "trace",
        lambda head: head.startswith(b"SQLite format 3\0"),
        "common.traces.nsys:read_nsys", _SUMMARY,
    ),
    Format(
        "nsys report", "Nsight Systems reports (.nsys-rep)", "trace",
        lambda head: head.startswith(b"NVIDIA Tegra Profiler Report"),
        "common.traces.nsys_report:read_nsys_report", _SUMMARY,
    ),
    Format(
        "ncu", "Nsight Compute reports (.ncu-rep) and `ncu --csv` output", "ncu",
        lambda head: head.startswith(b"NVR\0") or b'"ID","Process ID"' in head.replace(b"\0", b"")
        or head.lstrip().startswith(b"==PROF=="),
        "common.traces.ncu:read_ncu", "common.traces.ncu:summarise_ncu",
    ),
    Format(
        "memory", "CUDA memory snapshots of torch (.pickle)", "memory",
        lambda head: head.startswith((b"\x80", b"(dp", b"}q")),
        "common.traces.memory_snapshot:read_memory_snapshot",
        "common.traces.memory_summary:summarise_snapshot",
    ),
    # A reader of another format adds its row here (or calls `register`).
]  # fmt: skip


def register(added: Format) -> None:
    """Add a format; it is asked before those that are already known."""
    _formats.insert(0, added)


def known_formats() -> tuple[Format, ...]:
    return tuple(_formats)


def recognise(path: Path) -> Format:
    """The format of a file. Raises UsageError for a folder, an empty or an unknown file."""
    head = ByteSource(path).head(HEAD_BYTES)
    for candidate in _formats:
        if candidate.recognises(head):
            return candidate
    readable = ", ".join(candidate.says for candidate in _formats)
    raise UsageError(f"{path} is in no known format; readable are, each also gzipped: {readable}")


def open_any(path: Path) -> tuple[Format, Any]:
    """(format, content) of any readable file."""
    found = recognise(path)
    return found, _function(found.read)(path)


def open_trace(path: Path) -> Trace:
    """The trace in a file of torch.profiler or Nsight Systems; UsageError for anything else."""
    found, content = open_any(path)
    if not isinstance(content, Trace):
        raise UsageError(f"{path} is no trace ({found.says}); give a trace")
    return content


def open_and_summarise(path: Path) -> tuple[Format, Any, dict[str, Any]]:
    """(format, content, its totals as a dictionary for JSON) of any readable file, read once."""
    found, content = open_any(path)
    summary: dict[str, Any] = _function(found.summarise)(content, path)
    return found, content, summary


def summarise(path: Path) -> tuple[Format, dict[str, Any]]:
    """(format, its totals as a dictionary for JSON) of any readable file."""
    found, _, summary = open_and_summarise(path)
    return found, summary


def _function(place: str) -> Callable[..., Any]:
    module, name = place.split(":")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found
