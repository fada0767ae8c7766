"""Is every real file shown, with the totals that are known of it, and no traceback for any?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.cli import main

KINDS = ("torch", "nsys", "ncu", "ncu_csv", "memory")


def shown(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["show", str(path), "--json"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def known(real_data: Path, kind: str) -> dict[str, dict[str, Any]]:
    files = json.loads((real_data / "expected.json").read_text(encoding="utf-8"))["files"]
    return {name: facts for name, facts in files.items() if facts["kind"] == kind}


@pytest.mark.parametrize("kind", KINDS)
def test_every_real_file_is_recognised_and_shown(
    kind: str, real_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if kind == "ncu":
        pytest.importorskip("ncu_report", reason="ncu-report is not installed")
    found = known(real_data, kind)
    assert found
    for name in found:
        assert main(["show", str(real_data / name)]) == 0, name
        text = capsys.readouterr().out
        assert Path(name).name in text


def test_memory_peaks_and_reserved_bytes_are_those_that_are_known(
    real_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, facts in known(real_data, "memory").items():
        document = shown(real_data / name, capsys)
        assert document["reserved_bytes"] == facts["reserved"], name
        assert document["requested_bytes"] == facts["requested"], name


def test_a_report_of_ncu_adds_up_to_its_known_total(
    real_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ncu_report", reason="ncu-report is not installed")
    for name, facts in known(real_data, "ncu").items():
        document = shown(real_data / name, capsys)
        assert document["gpu_time_ns"] == facts["total_ns"], name
        assert all(row["reading"] for row in document["longest_launches"])


def test_an_unknown_file_is_refused_with_the_formats_that_are_readable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("nothing of a profiler\n")
    assert main(["show", str(path)]) == 2
    message = capsys.readouterr().err
    for word in ("torch.profiler", "Nsight Systems", "Nsight Compute", "snapshots"):
        assert word in message
