"""GemLite's shipped tables: all of them read, quickly, and what is said about them holds."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from common.errors import PreconditionError, UsageError
from problems.gemlite_autotune import shipped_tables as tables_module
from problems.gemlite_autotune.shipped_tables import (
    FAMILIES,
    Config,
    Key,
    check_versions,
    package_folder,
    parse_config,
    parse_key,
    read_table,
    read_tables,
    shipped_tables,
    tag_for_gpu,
)
from problems.gemlite_autotune.table_findings import CHECKS, findings

# What was noted when the tables were first read and does not hold: the values stand in WORKLOG.md.
REFUTED = {"T3c", "T3f", "T4a", "T4b", "T4c"}


def test_all_tables_are_read_within_two_seconds() -> None:
    folder = package_folder("gemlite") / "configs"
    started = time.process_time()
    tables = read_tables(folder)
    assert time.process_time() - started <= 2
    assert len(tables.by_gpu) == 11
    assert sum(tables.counts.values()) == 12_676
    assert {row.family for row in tables.rows()} == set(FAMILIES) - {"GEMV"}


def test_a_known_winner_is_what_the_file_says() -> None:
    found = shipped_tables().by_gpu["4090"]["GEMM_SPLITK"][Key(8, 4096, 4096, 128, 8, 104)]
    assert found == Config(16, 128, 64, warps=8, stages=1, split_k=16, a_order=2, group_m=8)
    assert str(found) == "16x128x64 SK16 A2 w8 s1"


def test_every_statement_about_the_tables_is_checked_against_them() -> None:
    found = findings(shipped_tables())
    assert len({finding.id for finding in found}) == len(CHECKS) >= 40
    assert {finding.id for finding in found if not finding.holds} == REFUTED


def test_a_changed_table_refutes_a_statement(tmp_path: Path) -> None:
    import json

    for source in (package_folder("gemlite") / "configs").glob("*.json"):
        document = json.loads(source.read_text())
        if source.name == "4090.json":
            for values in document["GEMM_SPLITK"].values():
                values["num_stages"] = 2
        (tmp_path / source.name).write_text(json.dumps(document))
    found = {finding.id: finding for finding in findings(read_tables(tmp_path))}
    assert not found["T1a"].holds


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("NVIDIA GeForce RTX 4090", "4090"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "4090"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA L40", "l40"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA RTX A4000", "a40"),  # an accident of the substring
        ("NVIDIA H200", None),
        ("NVIDIA B200", None),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA GeForce RTX 3090", None),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", None),
        ("NVIDIA RTX 6000 Ada Generation", "6000_ada"),
        ("NVIDIA H100 80GB HBM3", "h100"),
    ],
)
def test_a_table_is_chosen_by_substring_of_the_gpus_name(name: str, tag: str | None) -> None:
    assert tag_for_gpu(name, tuple(shipped_tables().by_gpu)) == tag


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"GEMM": {"(1, 2)": {}}}', '{"GEMM": 3}'])
def test_a_corrupt_table_is_named_in_one_line(tmp_path: Path, text: str) -> None:
    place = tmp_path / "4090.json"
    place.write_text(text)
    with pytest.raises(UsageError, match=r"4090\.json is no table .*; install GemLite"):
        read_table(place)
    with pytest.raises(UsageError, match="holds no tables"):
        read_tables(tmp_path / "nothing")


def test_another_version_is_refused_with_what_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables_module, "installed_version", lambda name: "0.5.1")
    with pytest.raises(PreconditionError, match=r"gemlite 0\.5\.1 .* pruner .*; run \./run\.sh"):
        check_versions(("gemlite",))


def test_another_triton_is_refused_with_what_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        tables_module, "installed_version", {"gemlite": "0.6.0.post2", "triton": "3.6.0"}.get
    )
    with pytest.raises(PreconditionError, match=r"triton 3\.6\.0 .* benchmark on a table hit"):
        check_versions()
    check_versions(("gemlite",))  # what a GPU is asked for with another Triton


def test_fields_of_older_compilers_are_left_out() -> None:
    old = {"BLOCK_SIZE_M": 1, "BLOCK_SIZE_N": 32, "BLOCK_SIZE_K": 16, "num_warps": 1,
           "num_stages": 2, "num_ctas": 1, "num_buffers_warp_spec": 0}  # fmt: skip
    assert parse_config(old) == Config(1, 32, 16, warps=1, stages=2)
    assert parse_config({**old, "waves_per_eu": 2}).others == (("waves_per_eu", 2),)
    with pytest.raises(ValueError, match="key"):
        parse_key("(1, 2, 3)")
