"""Is the table in tests/README.md the one that the recorded results give?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fuzz import figures


def test_the_table_is_current() -> None:
    text = figures.README.read_text(encoding="utf-8")
    assert figures.with_table(text) == text, "run: python tests/fuzz/figures.py --write"


def test_a_run_that_fell_short_or_found_a_fault_is_called_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = {
        "seed": 1, "first": 0, "cases": 10, "outcomes": {}, "faults": [{"number": 3}], "killed": 1,
        "slowest_s": 11.0, "memory_ratio": 5.0, "traced_share_of_limit": 0, "cpu_s": 1.0,
        "date": "2026-01-01", "python": "3", "machine": "x",
    }  # fmt: skip
    monkeypatch.setattr(figures, "RECORDED", tmp_path / "recorded")
    (tmp_path / "r.json").write_text(json.dumps(result))
    figures.add([tmp_path / "r.json"])
    judged = {row[0]: row[3] for row in figures.rows() if row[2]}
    assert len(judged) == 5 and set(judged.values()) == {"**missed**"}
