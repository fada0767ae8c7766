"""Is what a user types opened as the right side, and refused in one line that says what to type?"""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import snapshots
from helpers.runs import change_json, write_run
from helpers.trace_files import NsysFile, document, event

from common.diff.sides import Side, check_kinds, open_side
from common.errors import UsageError
from common.traces.formats import summarise
from common.traces.model import Trace

RECORDED = Path(__file__).parents[2] / "problems/float8_weight_only/recorded"
SAMPLES = {"fill": [1_000_000] * 12, "step": [4_000_000] * 12}
WORK = document(event("cpu_op", "aten::mm", "10", "5.125"), event("cpu_op", "aten::mul", "20", "4"))
REJECTED = {"passed": False, "reason": "relative error 9 is above the tolerance 0.1"}


def trace(path: Path, text: str = WORK) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def run(parent: Path, *variants: str, profiled: tuple[str, ...] | None = None, **more: Any) -> Path:
    folder = write_run(parent, {name: SAMPLES for name in variants}, **more)
    for name in variants if profiled is None else profiled:
        trace(folder / "traces" / name / "trace.json.gz")
    return folder


def refusal(text: str | Path) -> str:
    with pytest.raises(UsageError) as caught:
        open_side(str(text))
    said = str(caught.value)
    assert "\n" not in said
    return said


@pytest.mark.parametrize("name", ["before.json", "before.json.gz", "run#1.json", "no suffix"])
def test_a_file_is_read_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    path = trace(tmp_path / "some # folder" / name)
    side = open_side(str(path))
    assert (side.label, side.kind, side.format) == (name, "trace", "torch")
    assert side.summary == summarise(path)[1]
    assert isinstance(side.content, Trace) and side.trace is side.content
    assert side.manifest is side.samples is side.rounds is side.variant is None


def test_every_kind_of_file_says_what_it_is(tmp_path: Path) -> None:
    pickle = snapshots.write(tmp_path, snapshots.snapshot([], []))
    packed = tmp_path / "snapshot.pickle.gz"
    packed.write_bytes(gzip.compress(pickle.read_bytes()))
    assert open_side(str(pickle)).kind == open_side(str(packed)).kind == "memory"
    database = NsysFile(tmp_path / "x.sqlite")
    database.kernel("k", 0, 10, 1)
    assert open_side(str(database.done())).format == "nsys"
    with pytest.raises(UsageError, match="is no trace"):
        _ = open_side(str(pickle)).trace


def test_one_variant_of_a_run_has_its_trace_samples_and_manifest(tmp_path: Path) -> None:
    folder = run(tmp_path, "plain", "double")
    side = open_side(f"{folder}#double")
    assert (side.kind, side.variant, side.label) == ("run", "double", f"{folder.name}#double")
    assert side.summary["path"] == side.label and str(tmp_path) not in json.dumps(side.summary)
    assert side.manifest is not None and side.manifest["problem"] == "spin"
    assert side.samples == {phase: tuple(series) for phase, series in SAMPLES.items()}
    assert side.rounds is not None and side.rounds["step"] == tuple(range(12))
    assert side.summary["cpu_time_ns"] == 9125


def test_a_run_is_found_by_any_spelling_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run(tmp_path / "a#b", "plain", "double")
    monkeypatch.chdir(folder.parent)
    texts = [
        f"{folder}#plain",
        f"{folder}/#plain",
        f"{folder.name}#plain",
        f"./{folder.name}/#plain",
    ]
    labels = {open_side(text).label for text in texts}
    monkeypatch.chdir(folder)
    labels |= {open_side(text).label for text in (".#plain", "./#plain")}
    assert labels == {f"{folder.name}#plain"}


def test_a_variant_may_have_a_separator_in_its_name(tmp_path: Path) -> None:
    folder = run(tmp_path, "plain", "take#2")
    assert open_side(f"{folder}#take#2").variant == "take#2"


def test_a_run_of_one_variant_needs_no_name(tmp_path: Path) -> None:
    folder = run(tmp_path, "plain")
    assert open_side(str(folder)).variant == open_side(f"{folder}/").variant == "plain"


def test_a_run_of_several_says_exactly_what_to_type(tmp_path: Path) -> None:
    folder = run(tmp_path, "plain", "double")
    for text in (f"{folder}", f"{folder}/", f"{folder}#"):
        said = refusal(text)
        assert said.endswith(f"give one of {folder}#plain, {folder}#double")
    for choice in (f"{folder}#plain", f"{folder}#double"):
        open_side(choice)


def test_an_unknown_variant_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    folder = run(tmp_path, "plain", "double")
    said = refusal(f"{folder}#duble")
    assert "no variant duble" in said and f"{folder}#double" in said


def test_a_rejected_variant_has_no_speed(tmp_path: Path) -> None:
    checks = {"plain": {"passed": True}, "double": REJECTED}
    folder = run(tmp_path, "plain", "double", checks=checks)
    said = refusal(f"{folder}#double")
    assert "correctness check (relative error 9" in said and f"give {folder}#plain" in said


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (
            {"profile_failures": {"double": "out of memory"}},
            "could not be profiled (out of memory)",
        ),
        ({"failures": {"double": "it died"}}, "double is failed (it died)"),
        ({"not_applicable": {"double": "needs a GPU"}}, "double is not applicable (needs a GPU)"),
        ({}, "double was not profiled in this run"),
    ],
)
def test_a_variant_without_a_trace_says_why(
    tmp_path: Path, facts: dict[str, Any], expected: str
) -> None:
    folder = run(tmp_path, "plain", "double", profiled=("plain",), **facts)
    said = refusal(f"{folder}#double")
    assert expected in said and f"give {folder}#plain" in said


def test_a_run_that_was_only_timed_says_how_to_profile_it(tmp_path: Path) -> None:
    folder = run(tmp_path, "plain", "double", profiled=())
    assert refusal(folder).endswith("record one with `worklog run PROBLEM`")


def test_a_run_that_was_cut_short_still_has_its_samples(tmp_path: Path) -> None:
    folder = run(tmp_path, "plain", "double", finish=False)
    side = open_side(f"{folder}#plain")
    assert side.samples is not None and len(side.samples["step"]) == 12


def test_folders_that_are_no_run_and_names_that_do_not_exist(tmp_path: Path) -> None:
    folder = run(tmp_path / "runs", "plain")
    (tmp_path / "empty").mkdir()
    assert "no manifest.json" in refusal(tmp_path / "empty")
    assert "no manifest.json" in refusal(f"{tmp_path / 'empty'}#plain")
    assert f"{tmp_path}/runs/{folder.name}#VARIANT" in refusal(f"{tmp_path}/runs/")
    assert "does not exist" in refusal(tmp_path / "missing.json")
    assert "does not exist" in refusal(f"{tmp_path}/missing#plain")
    assert "leave out #plain" in refusal(f"{trace(tmp_path / 'a.json')}#plain")
    for odd in ("#plain", "", "a\0b", "x" * 5000):
        if odd:
            refusal(odd)
        else:  # the current folder, which is no run
            assert "no run" in refusal(odd)


@pytest.mark.parametrize("manifest", ["{", "[]", '{"schema": "worklog.run/1"}'])
def test_a_damaged_manifest_is_one_line(tmp_path: Path, manifest: str) -> None:
    folder = run(tmp_path, "plain", "double")
    (folder / "manifest.json").write_text(manifest)
    refusal(f"{folder}#plain")


def test_damaged_samples_and_a_trace_that_is_cut_off_are_one_line(tmp_path: Path) -> None:
    folder = run(tmp_path, "plain", "double")
    path = folder / "traces" / "plain" / "trace.json.gz"
    path.write_bytes(path.read_bytes()[:-20])
    assert "to its end" in refusal(f"{folder}#plain")
    (folder / "samples.jsonl").write_text('{"variant": "double", "phase": "step"}\n')
    assert "samples.jsonl" in refusal(f"{folder}#double")
    change_json(folder / "manifest.json", variants=None)
    assert "take the run again" in refusal(f"{folder}#double")


def test_sides_of_different_kinds_are_refused_by_name(tmp_path: Path) -> None:
    a = open_side(str(trace(tmp_path / "a.json")))
    b = open_side(str(snapshots.write(tmp_path, snapshots.snapshot([], []))))
    with pytest.raises(UsageError, match="a.json is a trace and snapshot.pickle is a memory snap"):
        check_kinds(a, b)
    of_run = open_side(f"{run(tmp_path, 'plain')}#plain")
    assert check_kinds(a, of_run) == () and check_kinds(b, b) == ()


def test_two_profilers_are_allowed_with_a_warning(tmp_path: Path) -> None:
    a = open_side(str(trace(tmp_path / "a.json")))
    database = NsysFile(tmp_path / "b.sqlite")
    database.kernel("k", 0, 10, 1)
    b = open_side(str(database.done()))
    (said,) = check_kinds(a, b)
    assert "a.json was recorded by torch and b.sqlite by nsys" in said


def test_the_recorded_runs_open_from_a_copy(tmp_path: Path) -> None:
    (source,) = RECORDED.glob("*/20261120T222401Z-*")
    folder = Path(shutil.copytree(source, tmp_path / "copy"))
    sides: list[Side] = [open_side(f"{folder}#{name}") for name in ("bf16", "float8wo-0.14.1")]
    for side in sides:
        assert side.samples is not None and len(side.samples["decode"]) == 19
        assert side.trace.allocations is not None and side.summary["cpu_time_ns"] > 0
    assert "float8dq-tensor is not applicable" in refusal(f"{folder}#float8dq-tensor")


def test_every_kind_of_real_file_opens(real_data: Path) -> None:
    for place, kind, label in (
        ("torch/bert_small_h100.json.gz", "trace", "torch"),
        ("nsys/mock.sqlite.gz", "trace", "nsys"),
        ("memory/attn_forward.pickle.gz", "memory", "memory"),
        ("ncu/toy_2080ti.raw.csv", "ncu", "ncu"),
    ):
        side = open_side(str(real_data / place))
        assert (side.kind, side.format, side.label) == (kind, label, Path(place).name)
        assert side.summary["path"] == side.label
