"""A pickle that is scanned from two places at once is judged as one that is scanned from one."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from helpers.hostile_pickles import HOSTILE
from helpers.snapshots import event, snapshot

from common.traces import pickle_scan, side_by_side
from common.traces.pickle_scan import PickleCut, PickleRefused

EVENTS = [event("alloc", 1 << 30, 5 + i, frames=[{"name": "}\x94(", "n": i}]) for i in range(9)]
SNAPSHOT = pickle.dumps(snapshot([], EVENTS))
LOOKS_LIKE_A_START = pickle.dumps({"segments": [], "a": "}\x94(" * 40, "b": b"}\x94(cos\nsystem\n"})
MANY_TUPLES = pickle.dumps([(n, (n,)) for n in range(60)])


def judged(data: bytes, half: int) -> str:
    try:
        pickle_scan._scan_from_two_places(data, half)
    except (PickleCut, PickleRefused) as error:
        return f"{type(error).__name__}: {error}"
    return "may be opened"


@contextmanager
def here(work: Callable[[], object], worthwhile: bool = True) -> Iterator[Callable[[], object]]:
    """`begun` without a process: every place of every file is tried."""
    yield work


SOUND = {"snapshot": SNAPSHOT, "text": LOOKS_LIKE_A_START, "tuples": MANY_TUPLES}
SMALL_HOSTILE = {name: data for name, data in HOSTILE.items() if len(data) < 1000}


@pytest.mark.parametrize("name", [*SOUND, *SMALL_HOSTILE])
def test_whatever_second_place_is_guessed_the_judgement_is_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pickle_scan, "begun", here)
    data = {**SOUND, **SMALL_HOSTILE}[name]
    whole = judged(data, len(data))
    assert whole.startswith("may be" if name in SOUND else "PickleRefused")
    assert {judged(data, half) for half in range(len(data) + 1)} == {whole}
    for end in random.Random(name).sample(range(2, len(data)), 20):
        cut = data[:end]
        assert {judged(cut, half) for half in range(end + 1)} == {judged(cut, end)}


def test_tuples_of_both_halves_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_scan, "begun", here)
    monkeypatch.setattr(pickle_scan, "MAX_NESTED_TUPLES", 120)
    assert judged(MANY_TUPLES, len(MANY_TUPLES) // 2) == "may be opened"
    monkeypatch.setattr(pickle_scan, "MAX_NESTED_TUPLES", 119)
    says = {judged(MANY_TUPLES, half) for half in range(len(MANY_TUPLES))}
    assert says == {"PickleRefused: it holds more than 119 nested tuples or sets"}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_hides_in_the_second_half_is_found_by_a_process_of_its_own(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side_by_side, "_possible", lambda: True)
    monkeypatch.setattr(pickle_scan, "WORTH_A_PROCESS_BYTES", 1)
    padding = pickle.dumps([{"a": n} for n in range(3)], protocol=4)[2:-1]
    data = b"\x80\x04" + padding + HOSTILE[name][HOSTILE[name].startswith(b"\x80") * 2 :]
    with pytest.raises(PickleRefused) as two:
        pickle_scan.scan(data)
    assert judged(data, len(data)) == f"PickleRefused: {two.value}"


def test_a_large_file_is_really_scanned_by_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "_possible", lambda: True)
    monkeypatch.setattr(pickle_scan, "WORTH_A_PROCESS_BYTES", 1)
    looked_at: list[tuple[int, int]] = []
    real = pickle_scan._looked_at

    def watched(data: bytes, start: int, end: int) -> pickle_scan._Scanned:
        looked_at.append((start, end))
        return real(data, start, end)

    monkeypatch.setattr(pickle_scan, "_looked_at", watched)
    pickle_scan.scan(SNAPSHOT)
    ((start, half),) = looked_at  # the rest was looked at elsewhere
    assert start == 0 and len(SNAPSHOT) // 2 <= half < len(SNAPSHOT)
