"""Work in a second process: the same values, the same errors, and nothing left running."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.trace_files import NsysFile, call, document, kernel, write
from msgspec.structs import astuple

from common.diff import trace_diff
from common.diff.diff import compare_files
from common.errors import UsageError
from common.traces import nsys, side_by_side
from common.traces.formats import open_trace
from common.traces.side_by_side import begun


def children() -> set[int]:
    """Processes of this one that were not waited for; a compiler's workers may be among them."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            behind_the_name = stat.read_text().rpartition(")")[2].split()
        except OSError:  # ended meanwhile
            continue
        if int(behind_the_name[1]) == os.getpid():
            found.add(int(stat.parent.name))
    return found


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(side_by_side, "_running", lambda: 1)
    monkeypatch.setattr(threading, "active_count", lambda: 1)  # other tests may have left some
    before = children()
    yield
    assert children() <= before, "somebody was left behind"


def test_the_value_comes_from_another_process() -> None:
    with begun(lambda: (os.getpid(), np.arange(300_000))) as result:
        process, column = result()
    assert process != os.getpid()
    assert column.sum() == np.arange(300_000).sum()


def test_gaps_looked_for_in_another_process_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launches = [call("cudaLaunchKernel", str(40 * i), "5", i) for i in range(1, 30)]
    paths = [
        write(tmp_path / name, document(*launches, *(
            kernel(f"k{i % 3}", str(40 * i + 9), str(length + i % 7), i) for i in range(1, 30)
        )))
        for name, length in (("a.json", 10), ("b.json", 15))
    ]  # fmt: skip
    found = []
    for least in (0, 1 << 60):
        monkeypatch.setattr(trace_diff, "WORTH_A_PROCESS", least)
        found.append(compare_files(*map(str, paths)).to_json())
    assert found[0] == found[1]
    assert found[0]["gaps"]["a_ns"] > found[0]["gaps"]["b_ns"] > 0


def test_an_error_is_the_caller_s() -> None:
    def fails() -> int:
        raise UsageError("this file is none; give another one")

    with begun(fails) as result, pytest.raises(UsageError, match="give another one"):
        result()


def test_work_is_done_here_when_the_other_process_dies() -> None:
    here = os.getpid()

    def dies_elsewhere() -> int:
        if os.getpid() != here:
            os._exit(9)
        return 7

    with begun(dies_elsewhere) as result:
        assert result() == 7


def test_what_cannot_be_sent_is_made_here() -> None:
    with begun(threading.Lock) as result:
        assert result() is not None


def test_nobody_asks() -> None:
    def forever() -> int:
        threading.Event().wait()
        return 1

    with pytest.raises(KeyError), begun(forever):
        raise KeyError("the rest failed")


@pytest.mark.parametrize("reason", ["small", "threads", "one core", "busy"])
def test_not_worth_or_not_safe(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason == "threads":
        monkeypatch.setattr(threading, "active_count", lambda: 2)
    if reason == "one core":
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    if reason == "busy":
        monkeypatch.setattr(side_by_side, "_running", lambda: 2)
    with begun(os.getpid, worthwhile=reason != "small") as result:
        assert result() == os.getpid()


def test_an_export_read_by_two_processes_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = NsysFile(tmp_path / "a.sqlite")
    for number in range(200):
        file.call("cudaLaunchKernel_v7000", number * 10, number * 10 + 4, number, pid=number % 3)
        file.kernel(f"k{number % 5}", number * 10 + 5, number * 10 + 9, number, pid=number % 3)
    path = file.done()
    alone = open_trace(path)
    asked: list[bool] = []
    possible = side_by_side._possible

    def counted() -> bool:
        asked.append(possible())
        return asked[-1]

    monkeypatch.setattr(side_by_side, "_possible", counted)
    monkeypatch.setattr(nsys, "LARGE_BYTES", 0)
    together = open_trace(path)
    assert asked == [True]
    for name in ("gpu", "host"):
        for column, other in zip(
            astuple(getattr(alone, name)), astuple(getattr(together, name)), strict=True
        ):
            assert np.array_equal(column, other)
    assert (alone.names, alone.threads, alone.counts) == (
        together.names, together.threads, together.counts,
    )  # fmt: skip
