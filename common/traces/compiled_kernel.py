"""What did the compiler make of a kernel? One file per compiled kernel: resources, opcodes.

    { "schema": "worklog.compiled/1", "kernel", "architecture": "sm_89", "title", "facts": {...},
      "resources": {"registers", "stack_bytes", "shared_bytes", "threads", ...},
      "instructions": {"HMMA.16816.F32": 32, ...}, "loop_instructions", "metrics": {...} }

Nothing in it was run: there are no times. `facts` and `metrics` are the writer's own: what was
compiled (a configuration, a layer), and what follows from it (occupancy, waves).
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from common.errors import UsageError

SCHEMA = "worklog.compiled/1"
HEAD = re.compile(rb'\s*\{\s*"schema"\s*:\s*"' + re.escape(SCHEMA.encode()) + b'"')
LARGEST_BYTES = 64 << 20  # a file of this kind has a few kilobytes
LARGEST_COUNT = 1 << 53  # exact as a float too; no kernel has so many of anything
RESOURCES = ("registers", "stack_bytes", "shared_bytes", "threads")


class CompiledKernel(msgspec.Struct, frozen=True):
    """`resources` per thread (registers, stack) or per block (shared memory, threads)."""

    kernel: str
    title: str
    architecture: str
    resources: Mapping[str, int]
    instructions: Mapping[str, int]  # static counts by full opcode
    loop_instructions: int  # of the largest loop; 0: none
    facts: Mapping[str, Any] = msgspec.field(default_factory=dict)
    metrics: Mapping[str, Any] = msgspec.field(default_factory=dict)

    @property
    def total_instructions(self) -> int:
        return sum(self.instructions.values())

    def by_class(self) -> dict[str, int]:
        """Instructions by class of opcode, the largest first."""
        from common.traces.sass import class_of  # slow to load, for every reader of any file

        found: dict[str, int] = {}
        for opcode, count in self.instructions.items():
            name = class_of(opcode)
            found[name] = found.get(name, 0) + count
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    def count(self, *opcodes: str) -> int:
        """Instructions whose opcode is one of these, modifiers aside ("LDG" counts "LDG.E.128")."""
        return sum(n for op, n in self.instructions.items() if op.split(".")[0] in opcodes)

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "kernel": self.kernel,
            "title": self.title,
            "architecture": self.architecture,
            "resources": dict(self.resources),
            "instructions": dict(sorted(self.instructions.items())),
            "loop_instructions": self.loop_instructions,
            "facts": dict(self.facts),
            "metrics": dict(self.metrics),
        }


def recognises(head: bytes) -> bool:
    """Do a file's first bytes begin such a document?"""
    return HEAD.match(head) is not None


def parse_compiled(document: Any, where: str) -> CompiledKernel:
    """A kernel from its document. Raises UsageError, naming `where`, for anything else."""
    try:
        if document["schema"] != SCHEMA:
            raise ValueError(f"schema {document['schema']!r}")
        resources = {name: _count(document["resources"][name]) for name in RESOURCES}
        for name, value in document["resources"].items():
            resources[str(name)] = _count(value)
        return CompiledKernel(
            kernel=str(document["kernel"]),
            title=str(document.get("title") or document["kernel"]),
            architecture=str(document["architecture"]),
            resources=resources,
            instructions={str(op): _count(n) for op, n in document["instructions"].items()},
            loop_instructions=_count(document["loop_instructions"]),
            facts=_of_any_kind(document.get("facts")),
            metrics=_of_any_kind(document.get("metrics")),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{where} is no compiled kernel ({error}); let the explorer write it anew"
        ) from error


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_COUNT:
        raise ValueError(f"{str(value)[:40]!r} is no count")
    return value


def _of_any_kind(values: Any) -> dict[str, Any]:
    """As they stand; only a number that no float can hold is refused: differences are floats."""
    found = dict(values or {})
    for value in found.values():
        if isinstance(value, int) and abs(value) > LARGEST_COUNT:
            raise ValueError(f"{str(value)[:40]!r} is beyond any figure")
    return found


def _unpacked(data: bytes) -> bytes:
    """A gzip stream's content. Raises ValueError beyond LARGEST_BYTES and for a damaged stream."""
    inflater = zlib.decompressobj(wbits=31)
    found = inflater.decompress(data, LARGEST_BYTES)
    if not inflater.eof:
        raise ValueError(f"its gzip stream ends early or holds over {LARGEST_BYTES >> 20} MiB")
    return found


def read_compiled(path: Path) -> CompiledKernel:
    """Read one file, also gzipped. Raises UsageError for one that is damaged or something else."""
    try:
        data = path.read_bytes() if path.stat().st_size <= LARGEST_BYTES else b""
        if data.startswith(b"\x1f\x8b"):
            data = _unpacked(data)
        document = json.loads(data.decode("utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{path} does not exist; give a file of a compiled kernel") from error
    except (OSError, ValueError, RecursionError, zlib.error) as error:
        raise UsageError(
            f"{path} is no compiled kernel ({error}); let the explorer write it anew"
        ) from error
    return parse_compiled(document, str(path))


def summarise_compiled(kernel: CompiledKernel, path: Path) -> dict[str, Any]:
    """The kernel's totals, ready for JSON: what `show` prints and a diff keeps of each side."""
    return {
        "path": str(path),
        "format": "compiled",
        "origin": "compiled",
        "devices": [],
        "kernel": kernel.kernel,
        "title": kernel.title,
        "architecture": kernel.architecture,
        "resources": dict(kernel.resources),
        "instructions": kernel.total_instructions,
        "loop_instructions": kernel.loop_instructions,
        "classes": kernel.by_class(),
        "facts": dict(kernel.facts),
        "metrics": dict(kernel.metrics),
        "warnings": [],
    }
