"""`worklog show` and `worklog diff` on what is no good file: a result with warnings, or one line.

Through the command line, in this process. Whatever is wrong with a file: never a traceback, never
half a document, and an error is one line on stderr, exit code 2, that ends in what to do.
"""

from __future__ import annotations

import gzip
import json
import pickle
import random
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.trace_files import NsysFile, call, document, kernel

from common.cli import main

Captured = pytest.CaptureFixture[str]
NEXT_ACTIONS = (
    "choose", "give", "copy", "record", "make", "close", "check", "export", "readable are", "print",
)  # fmt: skip


def good_trace() -> bytes:
    work = [
        part
        for number in range(1, 41)
        for part in (
            call("cudaLaunchKernel", str(100 * number), "5", number),
            kernel(f"k{number % 5}", str(100 * number + 8), "50.125", number),
        )
    ]
    return document(*work).encode()


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.json"
    path.write_bytes(good_trace())
    return path


def good_database(path: Path) -> Path:
    database = NsysFile(path)
    for number in range(1, 200):
        database.call("cudaLaunchKernel", 1000 * number, 1000 * number + 50, number)
        database.kernel(f"k{number % 3}", 1000 * number + 80, 1000 * number + 500, number)
    return database.done()


def outcome(capsys: Captured, *arguments: str | Path) -> tuple[int, str, str]:
    """Runs a command and checks the form of what it says."""
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in err and "\x1b" not in out + err
    if code == 0:
        assert out and "error:" not in err
        return code, out, err
    assert code == 2 and out == ""
    lines = err.splitlines()
    assert lines[-1].startswith("error: ") and sum("error: " in line for line in lines) == 1
    assert any(action in lines[-1].rpartition(";")[2] for action in NEXT_ACTIONS), lines[-1]
    return code, out, err


def all_ways(capsys: Captured, bad: Path, good: Path) -> list[int]:
    """Exit codes of show and of diff on both sides; what is printed as JSON must close."""
    codes = [outcome(capsys, "show", bad)[0]]
    for a, b in ((bad, good), (good, bad)):
        code, out, _ = outcome(capsys, "diff", a, b, "--json")
        codes.append(code)
        if code == 0:
            assert json.loads(out)["residual"] == 0
    return codes


# What is no trace at all

NO_TRACE: dict[str, bytes] = {
    "an empty file": b"",
    "blanks": b" \n\t\n",
    "null": b"null",
    "a number": b"5",
    "an object": b"{}",
    "no list of events": b'{"traceEvents": null}',
    "an object for the events": b'{"traceEvents": {}}',
    "a list of numbers": b"[1, 2, 3]",
    "a list of objects": b'[{"a": 1}]',
    "events that are none": b'{"traceEvents": [1, null, "x"]}',
    "deep nesting": b'{"a":' * 100_000,
    "half of a head": b'{"schemaVersion": 1, "devicePr',
    "UTF-16": '{"traceEvents": []}'.encode("utf-16"),
    "zeros": bytes(5000),
    "text": b"hello world\n" * 9,
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(50),
    "an empty gzip": gzip.compress(b""),
    "gzip in gzip": gzip.compress(gzip.compress(b"{}")),
    "the head of SQLite": b"SQLite format 3\0",
    "SQLite with a bad head": b"SQLite format 3\0" + bytes(200),
    "the head of a CSV": b'"ID","Kernel Name"\n',
    "half a CSV of ncu": b'"ID","Kernel Name","Metric Name","Metric Value"\n"0","k","m","5"\n',
    "a pickled list": pickle.dumps([1, 2]),
    "a pickled dictionary": pickle.dumps({"a": 1}),
    "a snapshot of the wrong types": pickle.dumps({"segments": 5, "device_traces": "x"}),
}


@pytest.mark.parametrize("what", NO_TRACE)
def test_what_is_no_trace_is_one_line_and_exit_code_2(
    tmp_path: Path, good: Path, capsys: Captured, what: str
) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(NO_TRACE[what])
    assert all_ways(capsys, bad, good) == [2, 2, 2]


@pytest.mark.parametrize("place", ["missing", ".", "x" * 5000, "a#b", "#", "nul\0", "loop"])
def test_a_path_that_leads_nowhere_is_one_line(
    tmp_path: Path, good: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert all_ways(capsys, Path(place), good) == [2, 2, 2]


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_would_run_code_does_not(
    tmp_path: Path, good: Path, capsys: Captured, protocol: int
) -> None:
    proof = tmp_path / "ran"

    class Hostile:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return Path.touch, (proof,)

    bad = tmp_path / "bad.pickle"
    bad.write_bytes(pickle.dumps({"segments": [Hostile()], "device_traces": []}, protocol))
    assert all_ways(capsys, bad, good) == [2, 2, 2]
    assert not proof.exists()


# Damaged files


def cuts(size: int) -> Iterator[int]:
    yield from random.Random(3).sample(range(1, size), 12)
    yield from (1, 2, 10, size - 1, size - 2)


def test_json_cut_off_anywhere_gives_the_events_before_the_cut_or_an_error(
    tmp_path: Path, good: Path, capsys: Captured
) -> None:
    whole = good_trace()
    for at in cuts(len(whole)):
        bad = tmp_path / "bad.json"
        bad.write_bytes(whole[:at])
        code, out, err = outcome(capsys, "diff", good, bad, "--json")
        intact = whole[:at].count(b"}}")  # each event ends in the bracket of its arguments
        if code == 0 and at < len(whole) - 2:
            assert json.loads(out)["b"]["events"] == intact
            said = json.loads(out)["b"]["warnings"]
            assert any(f"{intact} events" in str(warning) for warning in said), said
        assert code == 0 or intact == 0, (at, err)


def test_gzip_cut_off_or_flipped_anywhere_never_ends_in_silence(
    tmp_path: Path, good: Path, capsys: Captured
) -> None:
    packed = gzip.compress(good_trace())
    bad = tmp_path / "bad.json.gz"
    for at in cuts(len(packed)):
        bad.write_bytes(packed[:at])
        code, _, err = outcome(capsys, "diff", good, bad)
        assert code == 2 or "warning: " in err
    draw = random.Random(4)
    for _ in range(15):
        flipped = bytearray(packed)
        flipped[draw.randrange(10, len(packed))] ^= 1 << draw.randrange(8)
        bad.write_bytes(flipped)
        code, _, err = outcome(capsys, "diff", good, bad)
        assert code == 2 or "warning: " in err


def test_flipped_bytes_in_json_never_end_in_a_traceback(
    tmp_path: Path, good: Path, capsys: Captured
) -> None:
    draw, whole = random.Random(6), good_trace()
    for _ in range(40):
        flipped = bytearray(whole)
        for _ in range(draw.choice((1, 5, 50))):
            flipped[draw.randrange(len(whole))] = draw.randrange(256)
        bad = tmp_path / "bad.json"
        bad.write_bytes(flipped)
        all_ways(capsys, bad, good)


ODD_KERNELS: dict[str, tuple[str, int]] = {  # a kernel's text; how many of 41 kernels are left
    "NaN": (kernel("odd", "50", "NaN", 900), 40),
    "infinity": (kernel("odd", "50", "Infinity", 900), 40),
    "negative": (kernel("odd", "50", "-5", 900), 40),
    "no number": (kernel("odd", "50", '"five"', 900), 40),
    "null": (kernel("odd", "50", "null", 900), 40),
    "236 years": (kernel("odd", "50", "7447680000000000", 900), 40),
    "1e300": (kernel("odd", "50", "1e300", 900), 40),
    "no time": (kernel("odd", "50", "0", 900), 41),
    "control characters": (kernel("odd", "50", "5", 900).replace("odd", "o\x01\x00d"), 41),
    "no UTF-8": (kernel("odd", "50", "5", 900).replace("odd", "o\udcffd"), 41),
}


@pytest.mark.parametrize("what", ODD_KERNELS)
def test_one_odd_event_costs_that_event_and_is_said(
    tmp_path: Path, good: Path, capsys: Captured, what: str
) -> None:
    odd, kernels = ODD_KERNELS[what]
    bad = tmp_path / "bad.json"
    whole = good_trace().replace(b"[\n", b"[\n" + odd.encode("utf-8", "surrogateescape") + b",\n")
    bad.write_bytes(whole)
    assert all_ways(capsys, bad, good) == [0, 0, 0]
    _, _, err = outcome(capsys, "diff", good, bad)
    assert ("warning: " in err) == (what != "no time"), err
    read = json.loads(outcome(capsys, "diff", good, bad, "--json")[1])
    assert read["b"]["kernels"] == kernels


def test_repeated_ids_are_counted(tmp_path: Path, good: Path, capsys: Captured) -> None:
    bad = tmp_path / "bad.json"
    bad.write_bytes(good_trace().replace(b'"correlation": 7}', b'"correlation": 8}'))
    read = json.loads(outcome(capsys, "diff", good, bad, "--json")[1])
    assert read["delta"] == 0 and any("1 runtime call" in str(w) for w in read["b"]["warnings"])


@pytest.mark.parametrize("name", ["\x1b[31mred\x07", "<script>alert(1)</script>", "a\u202eb", ""])
def test_hostile_names_reach_no_terminal_and_no_page(
    tmp_path: Path, good: Path, capsys: Captured, name: str
) -> None:
    bad, page = tmp_path / "bad.json", tmp_path / "page.html"
    bad.write_text(document(kernel(name, "5", "900", None)))
    code, out, _ = outcome(capsys, "diff", good, bad, "--html", page)
    assert code == 0 and "\u202e" not in out
    assert "<script>alert" not in page.read_text() and "\x1b" not in page.read_text()


# Databases


def test_a_cut_or_flipped_database_is_read_or_refused_in_one_line(
    tmp_path: Path, capsys: Captured
) -> None:
    good = good_database(tmp_path / "good.sqlite")
    whole, bad = good.read_bytes(), tmp_path / "bad.sqlite"
    draw = random.Random(8)
    for at in cuts(len(whole)):
        bad.write_bytes(whole[:at])
        assert all_ways(capsys, bad, good) == [2, 2, 2]
    for _ in range(15):
        flipped = bytearray(whole)
        for _ in range(draw.choice((1, 20, 200))):
            flipped[draw.randrange(len(whole))] = draw.randrange(256)
        bad.write_bytes(flipped)
        all_ways(capsys, bad, good)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE KERNELS SET end = NULL",
        "UPDATE KERNELS SET end = 'x'",
        "UPDATE KERNELS SET end = 1e300",
        "UPDATE KERNELS SET end = start - 5",
        "UPDATE KERNELS SET start = -9223372036854775807, end = 9223372036854775807",
        "UPDATE KERNELS SET deviceId = 'a'",
        "UPDATE KERNELS SET streamId = 2.5",
        "UPDATE KERNELS SET demangledName = NULL, shortName = NULL",
        "UPDATE KERNELS SET correlationId = NULL",
        "UPDATE CUPTI_ACTIVITY_KIND_RUNTIME SET globalTid = NULL, nameId = NULL, end = NULL",
        "UPDATE StringIds SET value = x'fffe'",
        "DELETE FROM StringIds",
        "DELETE FROM KERNELS",
        "DROP TABLE KERNELS",
        "DROP TABLE CUPTI_ACTIVITY_KIND_RUNTIME",
        "DROP TABLE StringIds",
    ],
)
def test_odd_values_in_a_database_never_end_in_a_traceback(
    tmp_path: Path, capsys: Captured, change: str
) -> None:
    good, bad = good_database(tmp_path / "good.sqlite"), good_database(tmp_path / "bad.sqlite")
    with sqlite3.connect(bad) as database:
        database.execute(change.replace("KERNELS", "CUPTI_ACTIVITY_KIND_KERNEL"))
    database.close()
    codes = all_ways(capsys, bad, good)
    spoilt_times = "end = " in change and "KERNELS" in change
    if codes[0] == 0 and spoilt_times:
        assert "warning: " in outcome(capsys, "diff", good, bad)[2]


def test_a_locked_and_a_foreign_database_say_so(tmp_path: Path, capsys: Captured) -> None:
    good = good_database(tmp_path / "good.sqlite")
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as database:
        database.execute("CREATE TABLE t (a)")
    database.close()
    assert all_ways(capsys, foreign, good) == [2, 2, 2]
    locked = sqlite3.connect(good_database(tmp_path / "locked.sqlite"), isolation_level=None)
    locked.execute("BEGIN EXCLUSIVE")
    assert "locked" in outcome(capsys, "diff", good, tmp_path / "locked.sqlite")[2]
    locked.close()


# Two files that are each good


def test_files_of_two_kinds_are_refused_and_of_two_profilers_warned_about(
    tmp_path: Path, good: Path, capsys: Captured
) -> None:
    database = good_database(tmp_path / "good.sqlite")
    snapshot = tmp_path / "snapshot.pickle"
    snapshot.write_bytes(pickle.dumps({"segments": [], "device_traces": []}))
    assert outcome(capsys, "diff", good, snapshot)[0] == 2
    code, _, err = outcome(capsys, "diff", good, database)
    assert code == 0 and "recorded by" in err
    for by in ("pool", "nonsense", ""):
        code, _, _ = outcome(capsys, "diff", good, good, "--by", by) if by else (2, "", "")
        assert code == 2
