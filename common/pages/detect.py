"""Is it one of our problems? Looks for their signatures in any readable file, with the evidence.

A detector says nothing where it is not sure: no finding is no proof that a problem is absent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.pages.detectors.expert_loop import find_expert_loop
from common.pages.detectors.float8_opaque import find_opaque_float8
from common.pages.detectors.gemlite_tuning import (
    find_default_configuration,
    find_many_configurations,
    find_tuning,
)
from common.pages.detectors.graph_pools import find_private_pools
from common.pages.detectors.signature import Signature
from common.report.tables import printable
from common.traces.formats import open_any

# Kind of file (`Format.kind`) -> what can be looked for in it.
DETECTORS: Mapping[str, tuple[Callable[[Any], Signature | None], ...]] = {
    "trace": (find_opaque_float8, find_tuning, find_expert_loop),
    "memory": (find_private_pools,),
    "ncu": (find_many_configurations,),
    "compiled": (find_default_configuration,),
}


@dataclass(frozen=True)
class Detection:
    path: Path
    kind: str
    format: str
    signatures: tuple[Signature, ...]
    looked_for: int


def detect(path: Path) -> Detection:
    """Read a file and ask every detector for its kind. UsageError for an unreadable file."""
    found, content = open_any(path)
    detectors = DETECTORS.get(found.kind, ())
    signatures = tuple(s for detector in detectors if (s := detector(content)) is not None)
    return Detection(path, found.kind, found.name, signatures, len(detectors))


def as_text(detection: Detection) -> str:
    head = f"{printable(str(detection.path))} ({detection.format})"
    if not detection.signatures:
        return (
            f"{head}: no signature of our problems ({detection.looked_for} looked for); "
            "this proves nothing: problems/README.md lists what else can be slow"
        )
    lines = [head]
    for signature in detection.signatures:
        lines += ["", f"{signature.problem} [{signature.mark}]: {signature.says}"]
        lines += [f"  {fact.what}: {printable(fact.value)}" for fact in signature.facts]
        lines.append(f"  next: {signature.look}")
    return "\n".join(lines)


def as_document(detection: Detection) -> dict[str, Any]:
    return {
        "schema": "worklog.detect/1",
        "file": detection.path.name,
        "format": detection.format,
        "signatures": [asdict(signature) for signature in detection.signatures],
    }
