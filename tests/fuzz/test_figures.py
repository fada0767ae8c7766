"""Is the table in tests/README.md the one that the recorded results give?"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from fuzz import figures


def test_the_table_is_current() -> None:
    text = figures.README.read_text(encoding="utf-8")
    assert figures.with_table(text) == text, "run: python tests/fuzz/figures.py --write"


def test_every_test_that_the_page_names_exists() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", figures.README.read_text(encoding="utf-8"))
    assert len(named) > 40
    for file, name in named:
        text = (figures.README.parent / file.removeprefix("tests/")).read_text(encoding="utf-8")
        assert re.search(rf"^def {name}\(", text, re.MULTILINE), f"{file}::{name}"


def test_a_run_that_fell_short_or_found_a_fault_is_called_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = {
        "seed": 1, "first": 0, "cases": 10, "outcomes": {}, "faults": [{"number": 3}], "killed": 1,
        "slowest_s": 11.0, "memory_ratio": 5.0, "traced_share_of_limit": 0, "cpu_s": 1.0,
        "date": "2026-01-01", "python": "3", "machine": "x",
    }  # fmt: skip
    poor = {"executions": 9, "read": 1, "cpu_s": 2.0, "edges": 3, "features": 4, "corpus": 1,
            "seeds": 1, "faults": ["x"], "killed": []}  # fmt: skip
    guided = {"guided": {"torch": poor}, "seed": 2, "date": "2026-01-01"}
    monkeypatch.setattr(figures, "RECORDED", tmp_path / "recorded")
    monkeypatch.setattr(figures, "SCALE", tmp_path / "scale.json")
    lost = {"reports": {"ncu-rep read": 3}, "cases": 3, "faults": ["x"], "seed": 1, "date": "now"}
    (tmp_path / "l.json").write_text(json.dumps(lost))
    (tmp_path / "r.json").write_text(json.dumps(result))
    (tmp_path / "g.json").write_text(json.dumps(guided))
    figures.add([tmp_path / f"{name}.json" for name in "rgl"])
    judged = {row[0]: row[3] for row in figures.rows() if row[2]}
    assert len(judged) == 9 and set(judged.values()) == {"**missed**"}


def test_a_cost_that_bends_or_does_not_fit_is_called_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cost = {"cpu_s": 100.0, "peak_mib": 9_000}
    bent = {"cpu_s_exponent": 1.6, "cpu_s_worst_error": 0.4, "cpu_s_per_million": 1.0,
            "peak_mib_per_million": 1.0}  # fmt: skip
    about = {"cores": 2, "date": "2026-01-01", "cpu": "x", "memory_gib": 24, "python": "3"}
    scale = {
        "torch": {"sizes": {"10": {"costs": {"show": cost, "diff": cost}}}, "fit_show": bent,
                  "fit_diff": bent, "about": about},
        "ranks": {"one": cost, "costs": {"64": {**cost, "peak_mib": 64 * 9_000}},
                  "events_per_rank": 5, "about": about},
    }  # fmt: skip
    monkeypatch.setattr(figures, "RECORDED", tmp_path)
    monkeypatch.setattr(figures, "SCALE", tmp_path / "scale.json")
    (tmp_path / "scale.json").write_text(json.dumps(scale))
    rows = figures.rows()
    assert len(rows) == 5 and {row[3] for row in rows} == {"**missed**"}
