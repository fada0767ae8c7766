"""Variants that only count bytes are worked out two at a time; everything else has the machine."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.contract.problem import load_problem
from common.experiments import side_by_side
from common.experiments.side_by_side import BYTES_EACH, how_many, in_order
from common.timing.worker_client import Worker, WorkerFailed

SLEEPER = """
import time

class Session:
    def needs_bytes(self): return 0
    def prepare(self): return {}
    def profile(self, folder): time.sleep(60)

def open_session(variant, preset, device, options): return Session()
"""


class Watched:
    """Work that notes how much of it is underway at a time."""

    def __init__(self) -> None:
        self.lock, self.underway, self.most = threading.Lock(), 0, 0
        self.done: list[int] = []

    def __call__(self, item: int) -> int:
        with self.lock:
            self.underway += 1
            self.most = max(self.most, self.underway)
        time.sleep(0.05 / (item + 1))  # later ones are done sooner
        with self.lock:
            self.underway -= 1
            self.done.append(item)
        if item == 99:
            raise ValueError("broken")
        return item * item


@pytest.mark.parametrize("at_once", [1, 2])
def test_values_come_in_the_order_of_the_items(at_once: int) -> None:
    work = Watched()
    assert list(in_order(work, range(6), at_once, lambda: None)) == [0, 1, 4, 9, 16, 25]
    assert work.most == at_once


def test_one_that_raises_ends_those_underway_and_begins_no_other() -> None:
    work, ended = Watched(), threading.Event()
    found = in_order(work, [0, 99, *range(1, 40)], 2, ended.set)
    with pytest.raises(ValueError, match="broken"):
        list(found)
    assert ended.is_set()
    assert len(work.done) < 40


def _request(device: str = "cpu", **changed: Any) -> Any:
    problem = replace(load_problem("cuda_graph_memory"), **changed)
    return SimpleNamespace(problem=problem, device=device)


def test_only_a_problem_that_says_so_and_only_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "memory_available_bytes", lambda: 64 << 30)
    monkeypatch.setattr(side_by_side.os, "sched_getaffinity", lambda pid: set(range(8)))
    assert how_many(_request()) == 2
    assert how_many(_request("cuda")) == 1  # a GPU's memory is what is measured
    assert how_many(_request(at_once=1)) == 1
    assert how_many(SimpleNamespace(problem=load_problem("float8_weight_only"), device="cpu")) == 1


@pytest.mark.parametrize(
    ("free", "cores", "expected"),
    [(2 * BYTES_EACH, 2, 2), (2 * BYTES_EACH - 1, 2, 1), (64 << 30, 1, 1), (0, 2, 1), (None, 2, 2)],
)
def test_each_needs_a_core_and_memory(
    monkeypatch: pytest.MonkeyPatch, free: int | None, cores: int, expected: int
) -> None:
    monkeypatch.setattr(side_by_side, "memory_available_bytes", lambda: free)
    monkeypatch.setattr(side_by_side.os, "sched_getaffinity", lambda pid: set(range(cores)))
    assert how_many(_request()) == expected


def test_a_worker_is_ended_from_another_thread(tmp_path: Path) -> None:
    """What an interrupted run does with its two workers: nobody waits for their minutes."""
    repro = tmp_path / "repro.py"
    repro.write_text(SLEEPER)
    worker = Worker("slow", repro, [], {}, tmp_path / "slow.log")
    worker.request("open", 30, variant={}, preset={}, device="cpu", options={})
    worker.request("prepare", 30)
    threading.Timer(0.3, worker.interrupt).start()
    began = time.monotonic()
    with pytest.raises(WorkerFailed):
        worker.request("profile", 50, folder=str(tmp_path))
    assert time.monotonic() - began < 20
    worker.interrupt()  # once more, when it is gone, is no error
    worker.close()
