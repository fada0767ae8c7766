"""The real problems, every step started, packed, imported, rendered: would a recording arrive?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from common.contract.problem import load_problem, problem_names, root
from common.recording.archive import unpack

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str, Path]:
    out = tmp_path_factory.mktemp("rehearsal")
    before = status()
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-P", "-m", "common.cli", "record", "--rehearse", "--json",
         "--out", str(out)],
        env={**os.environ, "PYTHONPATH": str(root())}, capture_output=True, text=True,
        timeout=1200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert status() == before  # the real worklogs are never touched
    print(f"rehearsal: {time.monotonic() - started:.0f} s", file=sys.stderr)
    return json.loads(done.stdout), done.stderr, out


def status() -> list[str]:
    return sorted(
        f"{path} {path.stat().st_mtime_ns}" for path in (root() / "problems").rglob("*.[mtj]*")
    )


def test_every_step_of_every_problem_was_planned_and_started(
    rehearsal: tuple[dict[str, Any], str, Path],
) -> None:
    document, said, _ = rehearsal
    wanted = {f"{n}/{step.name}" for n in problem_names() for step in load_problem(n).record}
    states = {f"{s['problem']}/{s['step']}": s["state"] for s in document["steps"]}
    assert set(states) == wanted
    tools = {"nsys", "ncu"}  # where they are missing a step says so, as it would elsewhere
    for step in document["steps"]:
        if step["state"] == "not possible":
            assert step["step"] in tools and "not installed" in step["reason"]
        else:
            assert step["state"] in ("recorded", "started"), step
    for name in problem_names():
        assert any(s["state"] == "recorded" for s in document["steps"] if s["problem"] == name)
    assert document["floors"]["copy"]["best"] > 0 and "runs arrived" in said


def test_the_archive_holds_the_runs_and_no_place_of_this_machine(
    rehearsal: tuple[dict[str, Any], str, Path],
) -> None:
    document, _, out = rehearsal
    found = unpack(sorted(out.glob("record-*.tar.gz")))
    assert found.warnings == [] and found.record["rehearsal"] is True
    runs = [run for step in document["steps"] for run in step.get("runs", [])]
    assert runs and all(f"{run}/manifest.json" in found.files for run in runs)
    places = (str(out).encode(), str(root()).encode(), str(Path.home()).encode() + b"/")
    for name, data in {**found.files, "record": json.dumps(found.record).encode()}.items():
        if not name.endswith(".gz"):
            assert not any(place in data for place in places), name


def test_sealed_predictions_are_decided_on_the_rendered_copy(
    rehearsal: tuple[dict[str, Any], str, Path],
) -> None:
    _, said, _ = rehearsal
    line = next(line for line in said.splitlines() if "rehearsed predictions" in line)
    decided = int(line.split(" of ")[0].split()[-1])
    assert decided >= 4, line
