"""The real files and what is known about them, computed by code that shares nothing with ours."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

NOT_THERE = "no file"


def _facts() -> dict[str, dict[str, Any]]:
    place = os.environ.get("WORKLOG_TEST_DATA")
    if not place:
        return {}
    facts: dict[str, dict[str, Any]] = json.loads(Path(place, "expected.json").read_text())["files"]
    return facts


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per real file of a kind: the arguments `ncu_file`, `ncu_csv_file`, `memory_file`."""
    facts = _facts()
    for argument, kind in (
        ("ncu_file", "ncu"),
        ("ncu_csv_file", "ncu_csv"),
        ("memory_file", "memory"),
    ):
        if argument in metafunc.fixturenames:
            names = [name for name, fact in facts.items() if fact["kind"] == kind] or [NOT_THERE]
            metafunc.parametrize(argument, names)


@pytest.fixture(scope="session")
def facts(real_data: Path) -> dict[str, dict[str, Any]]:
    return _facts()
