"""Can a run folder be trusted: written whole or not at all, never overwritten, read with care?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers.command import environment

from common.errors import PreconditionError, UsageError
from common.recording.run_folder import (
    UNFINISHED,
    RunWriter,
    ensure_writable,
    open_run,
    read_json,
    write_json,
)


def create(parent: Path, revision: str = "0123456789", preset: str = "tiny") -> RunWriter:
    return RunWriter.create(parent, revision, preset, {"problem": "x"})


def test_a_run_is_unfinished_until_its_end_and_then_renamed(tmp_path: Path) -> None:
    writer = create(tmp_path / "a" / "b")
    assert writer.folder.name.endswith("-0123456-tiny" + UNFINISHED)
    writer.add_sample({"round": 0})
    assert not open_run(writer.folder).finished
    final = writer.finish()
    assert final.name + UNFINISHED not in os.listdir(final.parent)
    run = open_run(final)
    assert run.finished and run.samples() == [{"round": 0}]
    assert run.manifest["status"] == "finished" and run.manifest["problem"] == "x"


def test_neither_the_name_nor_the_status_alone_makes_a_run_finished(tmp_path: Path) -> None:
    """A kill may come between the two; a folder may be renamed by hand."""
    writer = create(tmp_path)
    renamed = writer.folder.rename(tmp_path / "renamed")
    assert not open_run(renamed).finished
    other = create(tmp_path)
    other.update(status="finished")
    assert not open_run(other.folder).finished


def test_runs_of_the_same_second_get_folders_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        writers = list(pool.map(lambda _: create(tmp_path), range(24)))
    assert len({writer.folder for writer in writers}) == 24
    finals = {writer.finish() for writer in writers}
    assert len(finals) == 24
    assert all(open_run(folder).finished for folder in finals)


def test_a_run_never_replaces_one_that_was_finished_meanwhile(tmp_path: Path) -> None:
    writer = create(tmp_path)
    stem = writer.folder.name.removesuffix(UNFINISHED)
    (tmp_path / stem).mkdir()
    (tmp_path / stem / "manifest.json").write_text("precious")
    final = writer.finish()
    assert (tmp_path / stem / "manifest.json").read_text() == "precious"
    assert final.name == f"{stem}.1" and open_run(final).finished


def test_a_revision_or_preset_makes_no_further_folders(tmp_path: Path) -> None:
    assert create(tmp_path, revision="a/b/../c").folder.parent == tmp_path


def test_every_sample_is_on_disk_before_the_next(tmp_path: Path) -> None:
    writer = create(tmp_path)
    for number in range(3):
        writer.add_sample({"round": number, "text": "ä"})
        assert open_run(writer.folder).samples()[-1] == {"round": number, "text": "ä"}


def test_a_writer_that_is_killed_at_any_moment_loses_no_flushed_sample(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from common.recording.run_folder import RunWriter
writer = RunWriter.create(Path({str(tmp_path)!r}), "abc", "tiny", {{}})
number = 0
while True:
    writer.add_sample({{"round": number, "padding": "x" * 300}})
    print(number, flush=True)
    writer.update(last=number)
    number += 1
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment(tmp_path), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(40):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    said = 39 + len(process.stdout.read().split())
    process.wait()
    (folder,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    run = open_run(folder)
    assert not run.finished
    assert [sample["round"] for sample in run.samples()][: said + 1] == list(range(said + 1))
    assert run.manifest["last"] >= said - 1


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"a": float("nan")})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["x.json"]
    write_json(path, {"ä": [1]})
    assert path.read_text(encoding="utf-8") == '{\n "ä": [\n  1\n ]\n}\n'


@pytest.mark.parametrize("text", ["", "{", "\x00", "[" * 100_000])
def test_a_file_that_is_no_json_is_a_usage_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UsageError, match="cannot be read"):
        read_json(tmp_path / "x.json")


def samples_file(tmp_path: Path, data: bytes) -> Path:
    writer = create(tmp_path)
    (writer.folder / "samples.jsonl").write_bytes(data)
    return writer.folder


@pytest.mark.parametrize("cut", [b'{"round": 2', b'{"round": 2}', b"\xff", b"{"])
def test_a_last_line_that_was_cut_off_is_no_sample(tmp_path: Path, cut: bytes) -> None:
    folder = samples_file(tmp_path, b'{"round": 0}\n{"round": 1}\n' + cut)
    assert open_run(folder).samples() == [{"round": 0}, {"round": 1}]


@pytest.mark.parametrize("garbage", [b"{", b"\xff\xfe", b"3", b"[]", b"null", b"", b"\x00" * 9])
def test_garbage_in_the_middle_is_a_usage_error_with_its_line(
    tmp_path: Path, garbage: bytes
) -> None:
    folder = samples_file(tmp_path, b'{"round": 0}\n' + garbage + b'\n{"round": 1}\n')
    with pytest.raises(UsageError, match=r"samples\.jsonl:2 "):
        open_run(folder).samples()


def test_a_run_without_samples_has_none(tmp_path: Path) -> None:
    assert open_run(create(tmp_path).folder).samples() == []


def test_what_is_no_run_folder_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no folder"):
        open_run(tmp_path / "missing")
    with pytest.raises(UsageError, match="does not exist"):
        open_run(tmp_path)
    for text in ("[]", "{}", '{"schema": "worklog.run/2"}'):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(UsageError, match=r"is no worklog\.run/1"):
            open_run(tmp_path)


def test_a_place_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (
        tmp_path / "file",
        tmp_path / "file" / "below",
        Path("/proc/worklog"),
        Path("/sys"),
    ):
        with pytest.raises(UsageError, match="choose another folder with --out"):
            ensure_writable(place)


def test_a_place_that_can_be_written_holds_no_trace_of_the_test(tmp_path: Path) -> None:
    ensure_writable(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path):  # type: ignore[no-untyped-def]
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=66m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_fills_up_keeps_what_was_measured(small_disk: Path) -> None:
    writer = create(small_disk)
    writer.add_sample({"round": 0})
    with (small_disk / "others").open("wb", buffering=0) as stream, pytest.raises(OSError):
        while True:
            stream.write(b"x" * (1 << 20))
    with pytest.raises(OSError, match="No space left"):
        for number in range(1, 5000):
            writer.add_sample({"round": number, "padding": "x" * 1000})
    with pytest.raises(OSError, match="No space left"):
        writer.update(padding="x" * 100_000)
    run = open_run(writer.folder)
    assert run.manifest["status"] == "unfinished"
    rounds = [sample["round"] for sample in run.samples()]
    assert rounds == list(range(len(rounds))) and rounds
    with pytest.raises(PreconditionError, match=r"disk of .* is full"):
        create(small_disk)
    assert not [p for p in small_disk.rglob(".write-test*")]


def test_a_full_disk_gives_the_command_exit_code_3(small_disk: Path, tmp_path: Path) -> None:
    from helpers.command import assert_one_line_error, worklog
    from helpers.synthetic import make_problem

    make_problem(tmp_path)
    (small_disk / "others").write_bytes(b"x" * (60 << 20))
    line = assert_one_line_error(worklog(tmp_path, "bench", "spin", "--out", str(small_disk)), 3)
    assert "full" in line and "--out" in line
