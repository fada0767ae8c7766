"""Files of compiled kernels: recognised by content, read exactly, damaged ones named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from common.errors import UsageError
from common.traces.compiled_kernel import read_compiled
from common.traces.formats import recognise, summarise

DATA = Path(__file__).parents[1] / "data" / "compiled"
FILES = sorted(DATA.glob("*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_is_recognised_and_its_parts_add_up(path: Path) -> None:
    found, summary = summarise(path)
    assert (found.name, found.kind) == ("compiled", "compiled")
    document = json.loads(path.read_text())
    assert summary["instructions"] == sum(document["instructions"].values()) > 100
    assert sum(summary["classes"].values()) == summary["instructions"]
    assert summary["classes"].get("other", 0) == 0
    assert summary["resources"]["registers"] == document["resources"]["registers"]
    assert read_compiled(path).to_json() == document


def test_a_gzipped_file_is_the_same(tmp_path: Path) -> None:
    packed = tmp_path / "anything"
    packed.write_bytes(gzip.compress(FILES[0].read_bytes()))
    assert recognise(packed).name == "compiled"
    assert read_compiled(packed) == read_compiled(FILES[0])


def test_the_shipped_winner_for_eight_rows() -> None:
    kernel = read_compiled(DATA / "winner_4090.json")
    assert kernel.resources["registers"] == 64
    assert kernel.resources["shared_bytes"] == 18_432
    assert kernel.by_class()["tensor"] == 32  # 4 unrolled steps of 8
    assert kernel.count("LDGSTS") == 0
    assert (kernel.metrics["blocks_per_sm"], kernel.metrics["waves"]) == (4, 1.0)


def test_a_torch_trace_that_names_the_schema_later_is_still_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text('{"traceEvents": [], "schema": "worklog.compiled/1"}')
    assert recognise(path).name == "torch"


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "worklog.compiled/2"},
        {"resources": {"registers": 3}},
        {"instructions": {"LDG": -1}},
        {"instructions": [1, 2]},
        {"loop_instructions": True},
        {"facts": 3},
        {"instructions": {"LDG": 10**400}},
        {"loop_instructions": 1 << 54},
        {"metrics": {"waves": -(10**400)}},
        {"facts": {"m": 10**40}},
    ],
)
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "kernel.json"
    path.write_text(json.dumps({**json.loads(FILES[0].read_text()), **change}))
    with pytest.raises(UsageError, match=r"is no compiled kernel .*; let the explorer write it"):
        read_compiled(path)


def test_a_truncated_or_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "kernel.json"
    path.write_bytes(FILES[0].read_bytes()[:300])
    with pytest.raises(UsageError, match="no compiled kernel"):
        read_compiled(path)
    with pytest.raises(UsageError, match="does not exist"):
        read_compiled(tmp_path / "nothing.json")


def test_show_prints_one_page(capsys: pytest.CaptureFixture[str]) -> None:
    from common.cli import main

    assert main(["show", str(DATA / "winner_4090.json")]) == 0
    page = capsys.readouterr().out
    assert "sm_89" in page and "tensor" in page and "Nothing was run" in page
