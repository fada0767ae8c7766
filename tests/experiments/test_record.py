"""Is everything that was recorded there afterwards, whatever went wrong, and does it come home?

Each step here is real: a process of its own that writes a run folder sample by sample. Only the
work is cheap. The whole way with the real problems is in test_rehearsal.py.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.command import environment, processes_naming, wait_for, worklog
from helpers.recordable import make_recordable, step

from common.contract.problem import load_problem
from common.contract.recorded import recordings
from common.experiments.import_evidence import import_evidence
from common.experiments.record import Recording, outcome, record
from common.experiments.record_plan import Place, plan
from common.pages.check import check, render
from common.recording.process_tree import Ended
from common.recording.run_folder import open_run
from common.recording.session import Session

PLACE = Place("cpu", 10**10, None, {"ncu": None, "nsys": "nsys is missing"}, rehearsal=True)
FACTS: dict[str, Any] = {
    "revision": "0123456789", "device": {"kind": "cpu", "slug": "cpu-a-2c"}, "rehearsal": False,
    "machine": {"cpu": "A CPU", "gpus": []}, "versions": {"torch": "2.13.0", "triton": "3.9.0"},
    "budget_s": 60.0,
}  # fmt: skip


def recording_of(
    root: Path, steps: list[dict[str, Any]], budget_s: float = 60.0
) -> tuple[Recording, list[Any]]:
    make_recordable(root, steps)
    problem = load_problem("spin")
    seals = {sets.name: sets.sha256 for sets in problem.predictions}
    session = Session.create(root / "out", FACTS)
    (session.folder / "floors.json").write_text("null")  # measured elsewhere: it needs torch
    return (
        Recording(
            session, "cpu", time.monotonic() + budget_s, (), root / "packed", 1 << 20,
            {**os.environ, "SEALS": json.dumps(seals)},
        ),
        plan([problem], PLACE),
    )  # fmt: skip


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORKLOG_ROOT", str(tmp_path))
    return tmp_path


def states(session: Session) -> dict[str, str]:
    return {f"{s['step']}/{s.get('preset')}": s["state"] for s in session.document()["steps"]}


def test_every_way_of_failing_is_recorded_and_the_next_step_goes_on(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.experiments.record_plan.LEAST_PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr("common.experiments.record_plan.PATIENCE", 1.0)
    small = {"rehearse": {"presets": ["small", "tiny"]}}
    counters = {"needs": ["gpu", "ncu"], "run": "ncu", "rehearse": {"run": "cheap.py"}}
    recording, steps = recording_of(
        root,
        [
            step("works", 1, **small),
            step("large", 2, "--behaviour", "out of memory", **small),
            step("hangs", 3, "--behaviour", "hangs"),
            step("breaks", 4, "--behaviour", "fails"),
            step("counts", 5, "--behaviour", "refused", **counters),
            step("counts-too", 6, **counters),
            step("traces", 7, run="nsys", needs=["gpu", "nsys"]),
            step("last", 8),
            step("huge", 9, seconds={"gpu": 9, "tiny": 5000}),
        ],
    )
    # A rehearsed profiler step keeps the need of its tool; here its script stands for the tool.
    steps = [
        one if one.step.name not in ("counts", "counts-too")
        else type(one)(one.problem, type(one.step)(**{**vars(one.step), "needs": ("ncu",)}),
                       one.presets, one.variants, one.expected_s)
        for one in steps
    ]  # fmt: skip
    record(recording, steps)
    assert states(recording.session) == {
        "works/small": "recorded", "large/small": "out of memory", "large/tiny": "recorded",
        "hangs/tiny": "timed out", "breaks/tiny": "failed", "counts/tiny": "failed",
        "counts-too/None": "not possible", "traces/None": "not possible", "last/tiny": "recorded",
        "huge/tiny": "not started",
    }  # fmt: skip
    said = {s["step"]: s for s in recording.session.document()["steps"]}
    assert "next smaller" in said["large"]["notices"][0]
    assert "time limit" in said["hangs"]["reason"]
    assert "/home/someone" not in said["breaks"]["reason"] and "broken" in said["breaks"]["reason"]
    assert "ERR_NVGPUCTRPERM" in said["counts-too"]["reason"]
    assert "nsys is missing" in said["traces"]["reason"]
    assert "5000 s" in said["huge"]["reason"]
    assert processes_naming(str(root / "problems" / "spin" / "cheap.py")) == []

    # What hung had measured three rounds: they come home, marked for what they are.
    assert recording.packed is not None
    done = import_evidence(recording.packed.parts)
    assert done.warnings == [] and len(done.runs) == 7
    (one,) = recordings(root / "problems" / "spin")
    hung = next(open_run(run) for run in done.runs if not open_run(run).finished
                and len(open_run(run).samples()) == 12)  # fmt: skip
    assert hung.folder.name.endswith(".unfinished")
    assert [step["state"] for step in one.steps].count("recorded") == 3

    # The page shows all of it, and scores the sealed set on the runs that it is about.
    assert render(["spin"])[1] == []
    assert [found for found in check(["spin"]) if "exercises" not in found.message] == []
    page = (root / "problems" / "spin" / "WORKLOG.md").read_text()
    assert "timed out" in page and "ERR_NVGPUCTRPERM" in page and "**unfinished**" in page
    rows = {line.split("|")[1].strip(): line for line in page.splitlines() if "| P" in line}
    assert "| 2 (2 … 2) | hit |" in rows["P1"] and "**miss**" in rows["P2"]
    assert "sealed before it was made" in page

    # A prediction that is changed now is found out.
    path = root / "problems" / "spin" / "predictions.toml"
    path.write_text(path.read_text().replace("low = 1.5", "low = 1.9"))
    assert any("was changed after the run" in str(finding) for finding in check(["spin"]))
    # Importing again changes nothing; another kind of import is refused.
    again = import_evidence(recording.packed.parts)
    assert again.runs == [] and len(again.already) == 7


def test_a_step_may_be_a_function_of_the_problem(root: Path) -> None:
    name = "problems.spin.steps:sweep"
    recording, steps = recording_of(
        root, [step("sweep", 1, "--extra", run=name), step("none", 2, run="problems.spin.steps:no")]
    )
    (root / "problems" / "spin" / "steps.py").write_text(
        "from common.recording.run_folder import RunWriter\n"
        "def sweep(context):\n"
        "    request = context.request()\n"
        "    writer = RunWriter.create(request.run_parent, 'abcdef0', context.preset,\n"
        "                              {'problem': context.problem, 'phases': {},\n"
        "                               'arguments': [*context.variants, *context.arguments]})\n"
        "    writer.finish()\n"
    )
    record(recording, steps)
    assert states(recording.session) == {"sweep/tiny": "recorded", "none/tiny": "failed"}
    said = recording.session.document()["steps"]
    assert "has no function no" in said[1]["reason"]
    run = open_run(recording.session.folder / said[0]["runs"][0])
    assert run.finished and run.manifest["arguments"] == ["plain", "double", "--extra"]


def test_a_capture_that_captured_nothing_is_no_success(tmp_path: Path) -> None:
    folder = tmp_path / "20260102T030405Z-0123456-tiny"
    folder.mkdir()
    log = tmp_path / "log.txt"
    log.write_text("error: the driver refuses (ERR_NVGPUCTRPERM)\n")
    rows = [
        {"variant": "plain", "mode": "kernels", "state": "failed", "reason": "ERR_NVGPUCTRPERM"},
        {"variant": "double", "mode": "kernels", "state": "complete"},
    ]
    manifest = {"variants": {"plain": {}, "double": {}}}

    def state_of(**more: Any) -> tuple[str, str | None]:
        (folder / "manifest.json").write_text(json.dumps({**manifest, **more}))
        return outcome(Ended(1, 2.0, False, 0), log, [folder])

    assert state_of(captures=rows)[0] == "recorded"  # in part, and it says which part is missing
    assert "in part: plain, kernels: ERR_NVGPUCTRPERM" in str(state_of(captures=rows)[1])
    assert state_of(captures=rows[:1])[0] == "failed"
    assert "ERR_NVGPUCTRPERM" in str(state_of(captures=rows[:1])[1])
    assert state_of(profile_failures={"plain": "no", "double": "no"})[0] == "failed"
    assert state_of(profile_failures={"plain": "CUDA out of memory"})[0] == "out of memory"
    assert state_of(claims=[])[0] == "recorded"  # exit code 1: a claim was refuted


def test_a_full_disk_ends_it_in_order_and_what_was_recorded_is_there(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording, steps = recording_of(root, [step("one", 1), step("two", 2), step("three", 3)])
    calls = iter([10**12, 10**12, 5])

    def usage(_: object) -> Any:
        return type("Usage", (), {"free": next(calls)})

    monkeypatch.setattr("common.experiments.record.shutil.disk_usage", usage)
    with pytest.raises(Exception, match="disk .* is full"):
        record(recording, steps)
    assert states(recording.session) == {"one/tiny": "recorded", "two/tiny": "recorded"}
    assert recording.packed is not None
    assert len(import_evidence(recording.packed.parts).runs) == 2


def test_killed_at_random_moments_all_that_was_flushed_imports(root: Path) -> None:
    """24 recordings, each killed with SIGKILL somewhere in its five steps."""
    draw = random.Random(20261121)
    names = [f"step{number}" for number in range(5)]
    rows = [step(name, n, "--pause", "0.01") for n, name in enumerate(names)]
    cut_short = inside_a_step = 0
    for trial in range(24):
        place = root / f"trial{trial}"
        place.mkdir()
        os.environ["WORKLOG_ROOT"] = str(place)
        recording, steps = recording_of(place, rows)
        child = os.fork()
        if child == 0:
            try:
                record(recording, steps)
            finally:
                os._exit(0)
        time.sleep(draw.uniform(0.02, 1.6))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert wait_for(lambda p=place: processes_naming(str(p / "problems")) == [])
        session = recording.session
        flushed = sorted(
            path.read_bytes().count(b"\n") for path in session.folder.rglob("samples.jsonl")
        )
        document = session.document()
        known = [s["state"] for s in document["steps"]]
        assert set(known) <= {"recorded", "killed"} and known.count("killed") <= 1
        cut_short += len(known) < 5 or "killed" in known
        inside_a_step += "killed" in known
        done = import_evidence([session.folder])
        assert done.warnings == []
        found = sorted(len(open_run(run).samples()) for run in done.runs)
        assert [count for count in found if count] == [count for count in flushed if count]
        # The archive that was written last is whole, too.
        for path in (place / "packed").glob("*.tar.gz"):
            assert import_evidence([path]).warnings == []
        assert check(["spin"]) == [] or render(["spin"])[1] == []
    assert cut_short >= 15 and inside_a_step >= 8  # or nothing was tested


def test_a_rehearsal_is_refused_as_evidence_and_a_stranger_is_left_out(root: Path) -> None:
    recording, steps = recording_of(root, [step("one", 1)])
    record(recording, steps)
    session = recording.session
    path = session.folder / "session.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rehearsal": True}))
    done = worklog(root, "import", str(session.folder))
    assert done.returncode == 2 and "is a rehearsal" in done.stderr and "--into" in done.stderr
    for folder in (root / "problems" / "spin").glob("recorded/*"):
        raise AssertionError(folder)
    path.write_text(json.dumps({**json.loads(path.read_text()), "rehearsal": False}))
    (root / "problems" / "spin").rename(root / "problems" / "other")
    done = worklog(root, "import", str(session.folder))
    assert done.returncode == 1 and "there is no problem spin here" in done.stderr


def test_sigterm_ends_a_recording_as_ctrl_c_does_and_packs_it(root: Path) -> None:
    rows = [step("one", 1), step("long", 2, "--pause", "1")]
    for row in rows:
        row["rehearse"] = {"presets": ["tiny"]}
    make_recordable(root, rows)
    (root / "pyproject.toml").write_text("")
    seals = json.dumps({})
    process = subprocess.Popen(
        [*_worklog(), "record", "--rehearse", "--out", str(root / "out")],
        env=environment(root, SEALS=seals), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert wait_for(lambda: list((root / "out").glob("*/steps/02-*/runs/*/*/*/samples.jsonl")), 60)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "archive:" in said, said
    (archive,) = (root / "out").glob("*.tar.gz")
    done = import_evidence([archive], root)
    assert [open_run(run).finished for run in done.runs] == [True, False]
    (found,) = recordings(root / "problems" / "spin")
    assert [row["state"] for row in found.steps] == ["recorded", "interrupted"]


def _worklog() -> list[str]:
    import sys

    return [sys.executable, "-P", "-m", "common.cli"]
