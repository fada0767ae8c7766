"""Does a whole bench, through the real command and real processes, say what is known beforehand?"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from helpers.command import (
    assert_one_line_error,
    processes_naming,
    run_folders,
    start,
    wait_for,
    worklog,
)
from helpers.synthetic import VARIANTS, make_problem

from common.contract.problem import load_problem
from common.recording.run_folder import open_run, write_json
from common.report.summary import build_summary

ALL = ["--variant", "double", "--variant", "shuffled"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    make_problem(root)
    return root


@pytest.fixture(scope="module")
def benched(root: Path) -> tuple[dict, Path, str]:  # type: ignore[type-arg]
    done = worklog(root, "bench", "spin", "--json", *ALL)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), run_folders(root)[0], done.stderr


def test_a_side_that_works_twice_as_long_has_a_ratio_of_two(benched) -> None:
    summary, _, _ = benched
    for row in summary["ratios"]:
        assert row["variant"] == "double"
        assert row["ratio"] == pytest.approx(2, rel=0.2)
    assert {row["phase"] for row in summary["ratios"]} == {"fill", "step"}
    steps = summary["variants"]["plain"]["phases"]["step"]
    assert steps["units_per_sample"] == 4
    assert steps["median_ns"] == pytest.approx(400_000, rel=0.5)  # of one step, not of four
    assert steps["minimum_ns"] >= 400_000
    assert summary["claims"][0]["reproduced"] is True


def test_json_is_one_document_and_progress_goes_elsewhere(benched) -> None:
    summary, folder, progress = benched
    assert summary["schema"] == "worklog.summary/1"
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert "spin: " in progress


def test_a_rejected_variant_has_a_reason_and_no_figures(benched) -> None:
    summary, folder, _ = benched
    rejected = summary["variants"]["shuffled"]
    assert rejected["state"] == "rejected"
    assert "tolerance" in rejected["reason"]
    assert rejected["phases"] == {}
    assert not any(row["variant"] == "shuffled" for row in summary["ratios"])
    samples = open_run(folder).samples()
    assert {sample["variant"] for sample in samples} == {"plain", "double"}


def test_rounds_are_interleaved_and_flushed_in_measured_order(benched) -> None:
    _, folder, _ = benched
    samples = open_run(folder).samples()
    started = [sample["started_ns"] for sample in samples]
    assert started == sorted(started)
    for number in range(10):
        of_round = [s for s in samples if s["round"] == number]
        assert sorted({s["variant"] for s in of_round}) == ["double", "plain"]


def test_a_manifest_names_no_person_no_machine_and_no_place(benched, root: Path) -> None:
    text = (benched[1] / "manifest.json").read_text()
    for private in (str(root), str(Path.home()) + "/", os.uname().nodename, "WORKLOG_"):
        assert private not in text, private


def test_the_summary_is_rebuilt_bit_for_bit_wherever_the_folder_lies(benched, tmp_path) -> None:
    moved = tmp_path / "elsewhere" / benched[1].name
    moved.parent.mkdir()
    moved.mkdir()
    for path in benched[1].iterdir():
        if path.is_file():
            (moved / path.name).write_bytes(path.read_bytes())
    write_json(tmp_path / "again.json", build_summary(open_run(moved)))
    assert (tmp_path / "again.json").read_bytes() == (benched[1] / "summary.json").read_bytes()


def test_a_variant_that_dies_in_round_three_is_failed_and_the_others_go_on(root: Path) -> None:
    before = set(run_folders(root))
    done = worklog(root, "bench", "spin", "--json", "--variant", "double", "--variant", "fragile")
    assert done.returncode == 1, done.stderr
    summary = json.loads(done.stdout)
    assert summary["variants"]["fragile"]["state"] == "failed"
    assert "killed" in summary["variants"]["fragile"]["reason"]
    assert summary["variants"]["fragile"]["phases"] == {}
    assert summary["claims"][0]["reproduced"] is True
    (folder,) = set(run_folders(root)) - before
    rounds = [s["round"] for s in open_run(folder).samples() if s["variant"] == "double"]
    assert len(rounds) == len(set(rounds)) * 2  # each round once, with two phases
    fragile = [s for s in open_run(folder).samples() if s["variant"] == "fragile"]
    assert len(fragile) == 2 * 2  # what it had measured before is kept


def test_sides_that_do_not_fit_together_are_measured_one_after_the_other(root: Path) -> None:
    done = worklog(root, "bench", "spin", "--json", "--preset", "apart", *ALL)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["sampling"]["interleaved"] is False
    assert summary["ratios"][0]["ratio"] == pytest.approx(2, rel=0.2)
    assert "measured one after the other" in summary["ratios"][0]["reasons"]
    assert summary["variants"]["shuffled"]["state"] == "rejected"


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("cannot be prepared", "FileNotFoundError"),
        ("nan facts", "ValueError"),
        ("zero time", "0 ns"),
        ("no outputs", "outputs"),
    ],
)
def test_whatever_is_wrong_with_one_variant_is_its_own_affair(
    tmp_path: Path, behaviour: str, words: str
) -> None:
    odd = {"settings": {"behaviour": behaviour}, "tolerance": 0.01}
    make_problem(tmp_path, variants={"plain": VARIANTS["plain"], "odd": odd}, claims=())
    done = worklog(tmp_path, "bench", "spin", "--json", "--preset", "tiny")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    summary = json.loads(done.stdout)
    assert summary["variants"]["odd"]["state"] == "failed"
    assert words in summary["variants"]["odd"]["reason"]
    assert "/nonexistent" not in done.stdout  # a manifest that may be published names no place
    assert summary["variants"]["plain"]["phases"]["step"]["samples"] >= 3


def test_a_baseline_that_gives_nan_ends_the_run(tmp_path: Path) -> None:
    bad = {"plain": {"settings": {"behaviour": "nan"}}, "double": VARIANTS["double"]}
    make_problem(tmp_path, variants=bad, claims=())
    for preset in ("tiny", "apart"):
        done = worklog(tmp_path, "bench", "spin", "--preset", preset)
        assert "not finite" in assert_one_line_error(done, 1)
    assert all(folder.name.endswith(".unfinished") for folder in run_folders(tmp_path))


def test_a_compared_variant_with_a_wrong_output_fails_the_run(tmp_path: Path) -> None:
    wrong = {**VARIANTS["shuffled"], "role": "compared"}
    make_problem(tmp_path, variants={"plain": VARIANTS["plain"], "wrong": wrong}, claims=())
    assert worklog(tmp_path, "bench", "spin", "--preset", "tiny").returncode == 1


def test_a_variant_that_must_be_rejected_and_is_not_fails_the_run(tmp_path: Path) -> None:
    fine = {"settings": {"factor": 1}, "tolerance": 0.01, "role": "must-be-rejected"}
    make_problem(tmp_path, variants={"plain": VARIANTS["plain"], "fine": fine}, claims=())
    done = worklog(tmp_path, "bench", "spin", "--preset", "tiny", "--variant", "fine")
    assert done.returncode == 1


def test_a_claim_that_is_not_reproduced_gives_exit_code_one(tmp_path: Path) -> None:
    make_problem(tmp_path, claims=[("ten times", 'ratio("double", "plain", "step") >= 10')])
    done = worklog(tmp_path, "bench", "spin", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["claims"][0]["reproduced"] is False


def test_a_killed_run_keeps_its_samples_and_leaves_no_process(tmp_path: Path) -> None:
    make_problem(tmp_path)
    process = start(tmp_path, "bench", "spin", "--preset", "long")

    def sampled() -> int:
        files = list(tmp_path.glob("results/*/*/*/samples.jsonl"))
        return files[0].read_bytes().count(b"\n") if files else 0

    try:
        assert wait_for(lambda: sampled() >= 12), process.stderr
        assert len(processes_naming(str(tmp_path / "problems"))) == 2
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert wait_for(lambda: not processes_naming(str(tmp_path / "problems")), 5)
    (folder,) = run_folders(tmp_path)
    assert folder.name.endswith(".unfinished")
    run = open_run(folder)
    assert not run.finished
    assert len(run.samples()) == sampled() >= 12
    assert run.manifest["status"] == "unfinished"
    summary = build_summary(run)  # and it can still be read
    assert summary["finished"] is False
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    done = worklog(tmp_path, "bench", "spin", "--preset", "tiny")
    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert len(run_folders(tmp_path)) == 2


@pytest.mark.parametrize("behaviour", ["", "sleeps"])
def test_ctrl_c_ends_everything_at_once_with_130(tmp_path: Path, behaviour: str) -> None:
    """Also while a side is in the middle of a sample, whose answer nobody waits for any more."""
    plain = {"settings": {"behaviour": behaviour}}
    make_problem(tmp_path, variants={"plain": plain, "double": VARIANTS["double"]})
    process = start(tmp_path, "bench", "spin", "--preset", "long")
    try:
        assert wait_for(lambda: list(tmp_path.glob("results/*/*/*/checks.json")))
        assert wait_for(
            lambda: "double" in next(tmp_path.glob("results/*/*/*/checks.json")).read_text()
        )
        wait_for(lambda: False, 0.3)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=8)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert errors.strip().splitlines()[-1].startswith("error: stopped")
    assert wait_for(lambda: not processes_naming(str(tmp_path / "problems")), 3)
    (folder,) = run_folders(tmp_path)
    assert folder.name.endswith(".unfinished")
    assert open_run(folder).manifest["ended_by"] == "KeyboardInterrupt"


def test_environment_and_packages_reach_the_variant_alone(tmp_path: Path) -> None:
    library = tmp_path / "variants" / "fakelib-1.2"
    library.mkdir(parents=True)
    (library / "fakelib.py").write_text("VERSION = '1.2'\n")
    variants = {
        "plain": VARIANTS["plain"],
        "packed": {
            "packages": ["fakelib==1.2"],
            "environment": {"SPIN_FLAG": "on"},
            "settings": {"behaviour": "fakelib"},
            "tolerance": 0.01,
        },
    }
    make_problem(tmp_path, variants=variants, claims=())
    # A folder of the same name where the command is called must not be taken for the package.
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "__init__.py").write_text("raise SystemExit('the wrong package')\n")
    done = worklog(tmp_path / "..", "bench", "spin", cwd=tmp_path, WORKLOG_ROOT=str(tmp_path),
                   WORKLOG_VARIANTS=str(tmp_path / "variants"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts = open_run(run_folders(tmp_path)[0]).manifest["facts"]
    assert facts["packed"] == {"library": "1.2", "flag": "on", "cwd_first": False}
    assert facts["plain"] == {"library": None, "flag": None, "cwd_first": False}


def test_a_package_that_is_not_installed_stops_before_any_work(tmp_path: Path) -> None:
    packed = {"packages": ["fakelib==9.9"], "tolerance": 0.01}
    make_problem(tmp_path, variants={"plain": VARIANTS["plain"], "packed": packed}, claims=())
    line = assert_one_line_error(worklog(tmp_path, "bench", "spin"), 3)
    assert "fakelib==9.9" in line and line.endswith("run ./run.sh setup")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["nothing"], ["spin"]),
        (["spin", "--preset", "huge"], ["small", "tiny", "long"]),
        (["spin", "--variant", "triple"], ["plain", "double", "fragile"]),
        (["spin", "--device", "tpu"], ["cpu", "cuda"]),
    ],
)
def test_an_unknown_name_exits_with_2_and_the_names_there_are(
    root: Path, arguments: list[str], names: list[str]
) -> None:
    before = run_folders(root)
    line = assert_one_line_error(worklog(root, "bench", *arguments), 2)
    assert all(name in line for name in names), line
    assert run_folders(root) == before


def test_a_place_that_cannot_be_written_is_refused_before_the_work(root, tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = worklog(root, "bench", "spin", "--out", str(tmp_path / "file"))
    assert "--out" in assert_one_line_error(done, 2)
    assert "/proc" in assert_one_line_error(worklog(root, "bench", "spin", "--out", "/proc/x"), 2)


def test_the_folders_of_the_command_line_stay_out_of_the_manifest(root, tmp_path) -> None:
    out, checkpoint = tmp_path / "secret-place", tmp_path / "secret-place-too"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text("{}")
    done = worklog(root, "bench", "spin", "--preset", "tiny", "--out", str(out), "--checkpoint",
                   str(checkpoint))  # fmt: skip
    # The session takes no checkpoint into account; what counts is what was written down.
    (folder,) = out.glob("*/*/*")
    assert "secret-place" not in (folder / "manifest.json").read_text(), done.stderr
    # An abbreviation would slip through that: there are none.
    assert_one_line_error(worklog(root, "bench", "spin", "--ou", str(out)), 2)


def test_profiles_carry_the_known_shares_and_peaks(root: Path) -> None:
    done = worklog(root, "profile", "spin", "--json", "--variant", "double")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)["variants"]["double"]["profile"]["step"]
    assert record["time"]["quantity"] == "cpu_time_ns"
    assert record["time"]["total_ns"] == 100_000
    rows = {row["operator"]: row["time_ns"] for row in record["time"]["rows"]}
    assert rows == {"aten::mul": 60_000, "aten::add": 10_000}
    assert record["time"]["outside_operators_ns"] == 30_000
    assert record["memory"]["temporary_peak_bytes"] == 2500
    assert record["memory"]["held_by"] == ["aten::mul"]


def test_a_profile_that_fails_is_said_and_gives_exit_code_one(tmp_path: Path) -> None:
    odd = {"settings": {"behaviour": "cannot be profiled"}, "tolerance": 0.01}
    claim = 'operator_share("odd", "step", "aten::mul") >= 0.5'
    make_problem(tmp_path, variants={"plain": VARIANTS["plain"], "odd": odd},
                 claims=[("a share", claim)])  # fmt: skip
    done = worklog(tmp_path, "profile", "spin", "--json")
    assert done.returncode == 1
    summary = json.loads(done.stdout)
    assert "no profiler" in summary["variants"]["odd"]["profile_failure"]
    assert "profile failed" in summary["claims"][0]["reason"]
    assert "/home/someone" not in done.stdout
    assert "profile" in summary["variants"]["plain"]


def test_the_problem_of_the_tests_is_a_valid_one(root, monkeypatch) -> None:
    monkeypatch.setenv("WORKLOG_ROOT", str(root))
    assert load_problem("spin").default_variants() == ["plain", "double"]
