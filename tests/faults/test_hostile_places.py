"""Names and places that somebody else chose: links in run folders, odd file names, full disks."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz.cases import GOOD
from helpers.command import CHECKOUT, assert_one_line_error, worklog

from common.cli import main
from common.errors import UsageError
from common.recording.run_folder import open_run, read_json, read_samples
from common.traces.formats import open_and_summarise

RUN = CHECKOUT / "tests" / "data" / "run_tiny"

# Links in a run folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    copy = tmp_path / "run"
    shutil.copytree(RUN, copy)
    return copy


@pytest.mark.parametrize("where", ["pipe", "/dev/zero", "/dev/stdin", "nowhere", "itself", "/tmp"])
@pytest.mark.parametrize("name", ["manifest.json", "samples.jsonl", "checks.json", "floors.json"])
def test_a_link_to_what_never_ends_is_refused_and_never_read(
    run: Path, tmp_path: Path, name: str, where: str
) -> None:
    os.mkfifo(tmp_path / "pipe")
    target = Path(where) if where.startswith("/") else tmp_path / where
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to((run / name) if where == "itself" else target)
    with pytest.raises(UsageError, match=r"is a pipe, a device or a folder; |leads nowhere; "):
        open_run(run)
    for read in (read_json, lambda path: list(read_samples(path))):
        with pytest.raises(UsageError):
            read(run / name)


def test_a_trace_of_a_run_that_leads_elsewhere_is_one_line(run: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (trace,) = (run / "traces" / "bf16").glob("*.json.gz")
    trace.unlink()
    trace.symlink_to(tmp_path / "pipe")
    done = worklog(tmp_path, "diff", f"{run}#bf16", f"{run}#int8wo-0.18.0")
    assert "pipe or a device" in assert_one_line_error(done, 2)


def test_a_report_holds_nothing_of_a_file_that_a_link_leads_to(run: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a password")
    for name in ("summary.json", "notes.txt"):
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(secret)
    done = worklog(tmp_path, "report", str(run), "--out", "page.html")
    assert done.returncode == 0 or "Traceback" not in done.stderr
    if (tmp_path / "page.html").exists():
        assert "a password" not in (tmp_path / "page.html").read_text()
    assert secret.read_text() == "a password"


# File names

NAMES = (
    "-x.json",
    "--json",
    "-",
    "a b.json",
    "a\nb.json",
    " ",
    "a#b.json",
    "é\udcff.json",
    "%s;$(x)",
)


@pytest.mark.parametrize("name", NAMES)
def test_any_file_name_can_be_read_and_none_breaks_a_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / os.fsencode(name).decode("utf-8", "surrogateescape")).write_bytes(GOOD["torch"])
    dotted = f"./{name}"
    for words in (
        ["show", dotted], ["show", "--json", dotted], ["show", "--", name],
        ["diff", dotted, dotted, "--html", "d.html", "--markdown", "d.md"],
        ["diff", "--json", "--", name, name],
        ["convert", "--parquet", f"tables{len(name)}", dotted],
    ):  # fmt: skip
        if words[0] == "convert":
            shutil.rmtree(tmp_path / words[2], ignore_errors=True)
        assert main(words) == 0, capsys.readouterr().err
        out, err = capsys.readouterr()
        assert not [c for c in out + err if not (c.isprintable() or c == "\n")]
        assert "a\nb" not in out + err
    assert main(["show", f"./{name}.none"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("name", ["-x.json", "--json"])
def test_a_name_that_looks_like_an_option_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(GOOD["torch"])
    assert_one_line_error(worklog(tmp_path, "diff", name, name), 2)


@pytest.mark.parametrize("name", ["-o", "a b", "a\nb"])
def test_any_name_of_a_folder_can_hold_a_report(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    shutil.copytree(RUN, folder)
    done = worklog(tmp_path, "report", f"./{name}")
    assert done.returncode == 0 and (folder / "report.html").stat().st_size > 10_000
    assert done.stdout.count("\n") == 1 + name.count("\n") and "Traceback" not in done.stderr


# Databases with somebody else's program in them


def test_views_and_triggers_are_neither_run_nor_believed(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    path.write_bytes(GOOD["nsys"])
    _, plain, _ = open_and_summarise(path)
    database = sqlite3.connect(path)
    database.executescript(
        """
        CREATE VIEW CUPTI_ACTIVITY_KIND_GRAPH_TRACE AS WITH RECURSIVE n(start) AS
          (SELECT 1 UNION ALL SELECT start + 1 FROM n)
          SELECT start, start + 1 AS end, 0 AS deviceId, 1 AS graphExecId, 7 AS streamId,
            1 AS correlationId, 0 AS globalPid FROM n;
        CREATE VIEW more AS SELECT * FROM CUPTI_ACTIVITY_KIND_KERNEL;
        CREATE TRIGGER t AFTER INSERT ON StringIds BEGIN DELETE FROM META_DATA_EXPORT; END;
        """
    )
    database.close()
    before = path.read_bytes()
    _, content, _ = open_and_summarise(path)
    assert content.gpu.duration_ns.tolist() == plain.gpu.duration_ns.tolist()
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [path.name]


# Disks that are full, for the commands that only write pages


@pytest.fixture(scope="module")
def full_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("disk")
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    (place / "old.html").write_text("<html>the page of before</html>")
    with (
        (place / "others").open("wb", buffering=0) as stream,
        pytest.raises(OSError, match="space"),
    ):
        while True:
            stream.write(bytes(1 << 14))
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize(
    "words",
    [
        ["report", str(RUN), "--out", "DISK/old.html"],
        ["diff", "a", "a", "--html", "DISK/old.html"],
        ["diff", "a", "a", "--markdown", "DISK/old.html"],
        ["convert", "a", "--parquet", "DISK/tables"],
    ],
)
def test_a_full_disk_is_exit_code_3_and_the_page_of_before_is_whole(
    full_disk: Path, tmp_path: Path, words: list[str]
) -> None:
    (tmp_path / "a").write_bytes(GOOD["torch"])
    done = worklog(tmp_path, *(word.replace("DISK", str(full_disk)) for word in words))
    said = assert_one_line_error(done, 3)
    assert "full" in said
    assert (full_disk / "old.html").read_text() == "<html>the page of before</html>"
    left = {path.name for path in full_disk.iterdir()} - {"old.html", "others"}
    assert not left, left
