"""`worklog show`: the format is told by content, results go to stdout, warnings to stderr."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from helpers.trace_files import NsysFile, call, document, kernel, write

from common.cli import main
from common.errors import UsageError
from common.traces import formats
from common.traces.formats import Format, open_trace, recognise


def trace_text() -> str:
    device = '"deviceProperties": [{"id": 0, "name": "A\\u0007GPU"}], '
    events = (call("launch", "1", "1", 1), kernel("k<script>", "2", "3.5", 1))
    return document(*events, before=device)


def test_the_format_is_told_by_content_and_not_by_name(tmp_path: Path) -> None:
    nsys = NsysFile(tmp_path / "n")
    nsys.kernel("a", 1, 5, 1)
    database = nsys.done().read_bytes()
    for content, source in ((trace_text().encode(), "torch"), (database, "nsys")):
        for number, data in enumerate((content, gzip.compress(content))):
            path = write(tmp_path / f"misleading{number}.csv", data)
            assert open_trace(path).source == source


def test_an_unknown_file_gets_a_list_of_what_is_readable(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"torch.profiler traces.*Nsight Systems exports"):
        recognise(write(tmp_path / "x.txt", "a,b,c\n"))


def test_another_reader_can_be_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_formats", list(formats.known_formats()))
    added = Format("own", "own files", "own", lambda head: head == b"own", "json:dumps", "json:x")
    formats.register(added)
    path = write(tmp_path / "own", "own")
    assert recognise(path) is added


@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_bad_input_is_one_line_and_exit_code_2(
    extra: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (
        tmp_path,
        tmp_path / "nothing",
        write(tmp_path / "empty", ""),
        write(tmp_path / "text", "hello"),
        write(tmp_path / "empty.gz", gzip.compress(b"")),
    ):
        assert main(["show", str(path), *extra]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("error: ") and err.count("\n") == 1


def test_json_is_one_document_with_the_totals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "t.json", trace_text())
    assert main(["show", str(path), "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert err == "" and found["path"] == "t.json" and found["gpu_time_ns"] == 3500
    assert found["devices"] == [
        {"id": 0, "name": "A\x07GPU", "span_ns": 3500, "busy_ns": 3500, "idle_ns": 0}
    ]
    for key in ("busy_ns", "span_ns", "unlinked_ns", "graph_launched_ns", "events", "kernels"):
        assert isinstance(found[key], int)


def test_the_table_shows_totals_and_no_control_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "t.json", trace_text()[:-4])
    assert main(["show", str(path)]) == 0
    out, err = capsys.readouterr()
    assert "0.003500" in out and "k<script>" in out and "\x07" not in out
    assert err.startswith("warning: it ends early")
