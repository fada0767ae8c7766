"""What expected.json knows about the real files, as lists for `pytest.mark.parametrize`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

NOT_THERE = "no file"  # the fixture `real_data` then skips the test


def known_facts() -> dict[str, Any]:
    place = os.environ.get("WORKLOG_TEST_DATA")
    if not place:
        return {"files": {}, "pairs": {}}
    facts: dict[str, Any] = json.loads(Path(place, "expected.json").read_text(encoding="utf-8"))
    return facts


def pairs_of(kind: str) -> list[str]:
    """Names of the pairs whose files are in the folder `kind`."""
    found = [n for n, p in known_facts()["pairs"].items() if p["a"].startswith(kind + "/")]
    return found or [NOT_THERE]


def files_of(kind: str) -> list[str]:
    return [n for n in known_facts()["files"] if n.startswith(kind + "/")] or [NOT_THERE]
