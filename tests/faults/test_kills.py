"""A dozen kills in every CI run (200 in the long form, tests/README.md), and the oracle itself."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

import pytest
from faults.kills import KINDS, Broken, Place, _look, campaign
from helpers.command import environment

from common.errors import UsageError
from common.recording import abandoned, run_folder
from common.recording.abandoned import HIDDEN
from common.recording.run_folder import RunWriter, open_run


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_what_was_measured_and_the_next_start_works() -> None:
    done = campaign(2 * len(KINDS), seed=20)
    assert done["faults"] == [] and done["kills"] == 2 * len(KINDS)
    assert sum(count for way, count in done["outcomes"].items() if way.endswith("killed")) >= 4


def writer(parent: Path) -> RunWriter:
    return RunWriter.create(parent, "0123456", "tiny", {"kind": "nsys"})


def place(root: Path) -> Place:
    made = object.__new__(Place)
    made.root, made.kind = root, "nsys"
    return made


def test_the_oracle_sees_lost_samples_a_wrong_state_and_a_folder_that_is_none(
    tmp_path: Path,
) -> None:
    run = writer(tmp_path / "results" / "p" / "cpu")
    run.add_sample({"round": 0})
    stem = run.folder.with_name(run.folder.name.removesuffix(".unfinished"))
    _look(place(tmp_path), {stem: 1})
    with pytest.raises(Broken, match="held 2 samples and holds 1"):
        _look(place(tmp_path), {stem: 2})
    run.folder.rename(stem)
    with pytest.raises(Broken, match="says finished=False"):
        _look(place(tmp_path), {})
    (stem / "manifest.json").unlink()
    with pytest.raises(UsageError):
        _look(place(tmp_path), {})


def test_a_run_that_is_killed_before_its_first_manifest_leaves_no_folder_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever comes between the folder and its manifest: a kill cannot be caught, so the folder
    must not have its name yet."""
    seen: list[list[str]] = []
    real = run_folder.write_json

    def looking(path: Path, document: object) -> None:
        seen.append([p.name for p in tmp_path.iterdir() if not p.name.startswith(HIDDEN)])
        real(path, document)

    monkeypatch.setattr(run_folder, "write_json", looking)
    made = writer(tmp_path)
    assert seen == [[]]
    assert open_run(made.folder).manifest["status"] == "unfinished"
    assert [p for p in tmp_path.iterdir() if p.name.startswith(HIDDEN)] == []


def left_behind(parent: Path, pid: int, age_s: float = 3600, hold: bool = True) -> Path:
    """What a SIGKILL between a folder and its name leaves."""
    folder = parent / f"{HIDDEN}{pid}-{secrets.token_hex(4)}"
    folder.mkdir(parents=True)
    if hold:
        (folder / "manifest.json").write_text("{}")
        (folder / "manifest.json.part").write_text("{")
    os.utime(folder, (time.time() - age_s,) * 2)
    return folder


def test_the_next_start_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    """Also where its process id has been given to a process that lives."""
    left = [left_behind(tmp_path, 1 << 22), left_behind(tmp_path, os.getpid(), hold=False)]
    probe = tmp_path / ".write-test-77"
    probe.write_text("x")
    os.utime(probe, (0, 0))
    run = writer(tmp_path)
    assert not any(path.exists() for path in (*left, probe))
    assert list(tmp_path.iterdir()) == [run.folder]


def test_nothing_else_is_removed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "manifest.json").write_text("kept")
    parent = tmp_path / "runs"
    young, full = left_behind(parent, 1, age_s=5), left_behind(parent, 2)
    (full / "samples.jsonl").write_text("{}\n")
    os.utime(full, (0, 0))
    future = left_behind(parent, 3, age_s=-9e6)  # the clock went back since
    mine = parent / ".new-plans"
    mine.mkdir()
    os.utime(mine, (0, 0))
    link = parent / f"{HIDDEN}4-00000000"
    link.symlink_to(elsewhere, target_is_directory=True)
    os.utime(link, (0, 0), follow_symlinks=False)
    writer(parent)
    assert all(path.exists() for path in (young, full, future, mine, link, elsewhere))
    assert (elsewhere / "manifest.json").read_text() == "kept"


def test_a_folder_that_another_process_is_making_is_left_alone(tmp_path: Path) -> None:
    """Killed while it holds the lock; before that, however old, its folder stays."""
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from common.recording import run_folder\n"
        "def never(path, document):\n"
        "    path.write_text('{}')\n"
        "    print(path.parent, flush=True)\n"
        "    time.sleep(100)\n"
        "run_folder.write_json = never\n"
        "run_folder.RunWriter.create(Path(sys.argv[1]), 'x', 'tiny', {})\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment(tmp_path)
    )
    assert process.stdout is not None
    making = Path(process.stdout.readline().strip())
    os.utime(making, (0, 0))
    first = writer(tmp_path)
    assert making.is_dir() and first.folder.is_dir()
    process.kill()
    process.wait()
    os.utime(making, (0, 0))
    writer(tmp_path)
    assert not making.exists() and first.folder.is_dir()


def test_a_file_system_without_locks_makes_runs_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = left_behind(tmp_path, 1 << 22)

    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(abandoned.fcntl, "flock", no_locks)
    assert open_run(writer(tmp_path).finish()).finished
    assert left.exists()


def test_a_manifest_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, document: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_folder, "write_json", full)
    with pytest.raises(OSError, match="No space"):
        writer(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("backwards_s", [1, 3600, 40 * 365 * 86_400])
def test_a_clock_that_goes_backwards_neither_replaces_a_run_nor_ends_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backwards_s: int
) -> None:
    from datetime import datetime, timedelta

    class Clock(datetime):
        late = timedelta(0)

        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime(2026, 3, 4, 5, 6, 7, tzinfo=tz) - cls.late  # type: ignore[arg-type]

    monkeypatch.setattr(run_folder, "datetime", Clock)
    first = writer(tmp_path).finish()
    second = writer(tmp_path)
    Clock.late = timedelta(seconds=backwards_s)
    done = second.finish()
    third = writer(tmp_path).finish()
    assert len({first, done, third}) == 3
    assert all(open_run(folder).finished for folder in (first, done, third))


def test_two_runs_at_once_in_one_folder_have_folders_of_their_own(tmp_path: Path) -> None:
    from helpers.command import run_folders, start
    from helpers.synthetic import make_problem

    make_problem(tmp_path)
    both = [start(tmp_path, "bench", "spin", "--preset", "tiny") for _ in range(2)]
    assert [process.communicate()[1] and process.returncode for process in both] == [0, 0]
    folders = run_folders(tmp_path)
    assert len(folders) == 2 and all(open_run(folder).finished for folder in folders)
    counts = {len(open_run(folder).samples()) for folder in folders}
    assert min(counts) >= 12  # nobody wrote into the other's file
