"""Which table of an Nsight Systems database is which? Told by its columns, in any schema version.

Tables are written lazily: one that is missing has no rows. The name that the versions known so far
use decides only where several tables have the right columns.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.traces.sqlite_file import Database


@dataclass(frozen=True)
class Role:
    """A kind of table: columns it must have, and columns that mark another kind."""

    usual: tuple[str, ...]
    needs: frozenset[str]
    without: frozenset[str] = frozenset()


def _role(usual: str, needs: str, without: str = "") -> Role:
    return Role(tuple(usual.split()), frozenset(needs.split()), frozenset(without.split()))


_CUPTI = "CUPTI_ACTIVITY_KIND_"
ROLES = {
    "kernel": _role(
        f"{_CUPTI}KERNEL {_CUPTI}CONCURRENT_KERNEL",
        "start end deviceId demangledName",
    ),
    "memcpy": _role(
        f"{_CUPTI}MEMCPY", "start end deviceId bytes copyKind", "demangledName"
    ),
    "memset": _role(
        f"{_CUPTI}MEMSET", "start end deviceId bytes value",
        "copyKind demangledName",
    ),
    # CUDA_GRAPH_EVENTS has these ids too, but belongs to the host: it has no device.
    "graph": _role(
        f"{_CUPTI}GRAPH_TRACE", "start end deviceId graphExecId",
        "demangledName copyKind bytes",
    ),
    "runtime": _role(
        f"{_CUPTI}RUNTIME {_CUPTI}DRIVER", "start end globalTid correlationId nameId",
        "deviceId streamId",
    ),
    "nvtx": _role("NVTX_EVENTS", "start end eventType globalTid text"),
    "strings": _role("StringIds", "id value", "name start end"),
    "gpus": _role("TARGET_INFO_GPU", "id name smCount"),
    "cuda_devices": _role("TARGET_INFO_CUDA_DEVICE", "gpuId cudaId"),
    "export": _role("META_DATA_EXPORT EXPORT_META_DATA", "name value", "id start globalVid"),
}  # fmt: skip


def find_tables(database: Database) -> dict[str, tuple[str, ...]]:
    """{role: tables}. One table per role, except where a role's columns stand under new names."""
    found: dict[str, tuple[str, ...]] = {}
    for role, wanted in ROLES.items():
        fitting = [
            name
            for name, columns in sorted(database.tables.items())
            if wanted.needs <= columns and not wanted.without & columns
        ]
        known = tuple(name for name in wanted.usual if name in fitting)
        if known or fitting:
            # Tables of other names beside a known one are somebody's copies: counted once.
            found[role] = known or tuple(fitting)
    return found


def is_nsys(database: Database, tables: dict[str, tuple[str, ...]]) -> bool:
    """Whether Nsight Systems wrote it: texts by id, and an export's facts or its events."""
    events = tables.keys() & {"kernel", "memcpy", "memset", "graph", "runtime", "nvtx"}
    return "strings" in tables and bool(
        events or "EXPORT_SCHEMA_VERSION" in facts(database, tables)
    )


def facts(database: Database, tables: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """What the export says about itself: versions."""
    found: dict[str, str] = {}
    for table in tables.get("export", ()):
        for name, value in database.rows(table, ("name", "value")):
            if isinstance(name, str) and name.startswith("EXPORT_"):
                found[name] = str(value)
    return found
