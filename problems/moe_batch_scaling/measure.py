"""How long does each point of a group take? Sides in turn, every failure recorded, nothing lost.

Each side is opened (which calls it once) and looked at: one that fails there is a failed point with
its reason; one that takes more than `slow` times the fastest and is not short keeps the sample of
that look, because sampling it for minutes would say nothing more; where it was `HOPELESS` at a
smaller batch it is skipped at the next. The rest, and the group's baseline always, is sampled in
interleaved rounds, which a side leaves when its own ratio to the baseline is known to the precision
asked for: the time goes to what is not known yet. Where batches take turns all are sampled, and
stay to the end.
Rounds end when all is known or the time for them is over, and the points say which. Each sample is
on disk before the next is taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Protocol

from common.errors import UsageError
from common.timing.sampling import Sample, StopRule, interleave
from problems.moe_batch_scaling.plan import Group, Rounds
from problems.moe_batch_scaling.points import Measured, Point, PointStore, Status

SHORT_NS = 30_000_000
HOPELESS, LONG_NS = 5.0, 1_000_000_000


class Side(Protocol):
    """One opened (and warm) point: `sample` times one pass over the next of its inputs."""

    def sample(self) -> int:
        """Duration of one pass in ns; the n-th call of each side of a group has the same input."""

    def describe(self, measured: Measured) -> Measured:
        """The point with what is known of its routing, taken in passes that are not timed."""


Opener = Callable[[Point], Side]


class SideFailed(Exception):
    """A side failed while it was sampled."""

    def __init__(self, point: Point, reason: str) -> None:
        super().__init__(reason)
        self.point, self.reason = point, reason


@dataclass
class _Taken:
    """The samples of one side so far."""

    side: Side
    rounds: list[int]
    samples_ns: list[int]


@contextmanager
def failure_of(point: Point) -> Iterator[None]:
    """Whatever goes wrong with one point is that point's; only what ends the program goes on."""
    try:
        yield
    except UsageError:
        raise  # the caller's own words: the call is wrong, not the point
    except Exception as error:
        raise SideFailed(point, explain(error)) from error


def explain(error: BaseException) -> str:
    """One line that says whether memory ran out."""
    text = " ".join(str(error).split())[:300]
    short_of_memory = (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in text
        or "not enough memory" in text
    )
    return f"out of memory: {text}" if short_of_memory else f"{type(error).__name__}: {text}"


def measure_group(
    group: Group,
    open_side: Opener,
    store: PointStore,
    rounds: Rounds,
    say: Callable[[str], None],
    slow: float,
    without: Mapping[str, str] = MappingProxyType({}),
) -> float:
    """Measure what the store has not got; every point of the group is in it afterwards.

    `without`: sides that are not measured here, and why. Returns the seconds that rounds took.
    """
    if store.done(group.points):
        return rounds.seconds  # of an earlier call: it left nothing to whoever comes after
    taken: dict[str, _Taken] = {}

    def known(point: Point, status: Status, **more: Any) -> Measured:
        base = group.in_turn or point == group.points[0]
        return Measured(point, group.name, status, baseline=base, **more)

    points = {point.id: point for point in group.points}
    looks: dict[str, int] = {}
    for point in group.points:
        hopeless = without.get(point.side) or hopeless_at(point, store)
        if hopeless is not None and point != group.points[0]:
            store.add(known(point, "skipped", reason=hopeless))
            continue
        say(f"opening {point.id}")
        try:
            with failure_of(point):
                side = open_side(point)
                looks[point.id] = side.sample()
            taken[point.id] = _Taken(side, [], [])
        except SideFailed as failed:
            store.add(known(point, "failed", reason=failed.reason))
    if not taken:
        return 0.0
    fastest = min(looks.values())
    # Sequences may differ: a side is slow if it is so by the pass and by the token.
    least = min(look / points[name].tokens for name, look in looks.items())

    def slower_by(name: str) -> float:
        return min(looks[name] / fastest, looks[name] / points[name].tokens / least)

    # Batches that take turns are the sweep itself: one look through a stumble drops none of them.
    others = [] if group.in_turn else [name for name in taken if name != group.points[0].id]
    for name in others:
        if slower_by(name) > slow and SHORT_NS < looks[name] < SHORT_NS * 10:
            # Looked at again, so that one stumble of the machine does not decide.
            try:
                with failure_of(points[name]):
                    looks[name] = min(looks[name], taken[name].side.sample())
            except SideFailed as failed:
                del taken[name]
                store.add(known(points[name], "failed", reason=failed.reason))
                continue
        took, slower = looks[name], slower_by(name)
        if slower > slow and took > SHORT_NS:
            left = taken.pop(name)
            once = known(
                points[name],
                "measured",
                reason=f"sampled once: {slower:.1f} times the fastest",
                rounds=(0,),
                samples_ns=(took,),
            )
            _describe(left.side, once, store)
    say(f"timing {group.name}: {len(taken)} sides")
    began = time.perf_counter()
    stopped = _sample(group, taken, points, store, rounds)
    spent_s = time.perf_counter() - began
    for name, kept in taken.items():
        rounds_, samples = tuple(kept.rounds), tuple(kept.samples_ns)
        measured = known(
            points[name], "measured", rounds=rounds_, samples_ns=samples, stopped=stopped
        )
        _describe(kept.side, measured, store)
    return spent_s


def hopeless_at(point: Point, store: PointStore) -> str | None:
    """Why this side is not even looked at: what it took at a smaller batch; None if it may."""
    for before in store.kept.values():
        p = before.point
        if replace(p, batch=point.batch) != point or p.batch >= point.batch:
            continue
        if before.reason.startswith("sampled once"):
            slower = float(before.reason.split()[2])
            if slower > HOPELESS and before.samples_ns[0] * point.batch / p.batch > LONG_NS:
                return f"skipped: {slower:.1f} times the fastest at batch {p.batch}"
    return None


def _describe(side: Side, measured: Measured, store: PointStore) -> None:
    try:
        with failure_of(measured.point):
            measured = side.describe(measured)
    except SideFailed as failed:
        measured = replace(measured, reason=f"its routing is not known: {failed.reason}")
    store.add(measured)


def _sample(
    group: Group,
    taken: dict[str, _Taken],
    points: Mapping[str, Point],
    store: PointStore,
    rounds: Rounds,
) -> str:
    """Interleaved rounds; a side that fails is taken out and the others go on.

    Returns why they ended.
    """

    def timed(name: str) -> Callable[[], Mapping[str, int]]:
        def once() -> Mapping[str, int]:
            with failure_of(points[name]):
                return {group.phase: taken[name].side.sample()}

        return once

    done = 0

    def keep(sample: Sample) -> None:
        kept = taken[sample.variant]
        kept.rounds.append(done + sample.round)
        kept.samples_ns.append(sample.duration_ns)
        store.add_sample(points[sample.variant], done + sample.round, sample.duration_ns)

    while taken:
        left = max(rounds.least, rounds.most - done)
        rule = StopRule(
            min(rounds.least, left), left, rounds.seconds, rounds.precision, rounds.relative
        )
        if group.in_turn:
            rule = replace(rule, relative_precision=0.0)
        try:
            ended = interleave(
                {name: timed(name) for name in taken},
                group.points[0].id if group.points[0].id in taken else next(iter(taken)),
                rule, keep, leave_when_known=not group.in_turn,
            )  # fmt: skip
            return ended.decision.reason
        except SideFailed as failed:
            # What it had is kept with it, as a failed point: the others go on without it.
            lost = taken.pop(failed.point.id)
            store.add(
                Measured(
                    failed.point,
                    group.name,
                    "failed",
                    failed.reason,
                    tuple(lost.rounds),
                    tuple(lost.samples_ns),
                    baseline=group.in_turn or failed.point == group.points[0],
                )
            )
            done = max((max(t.rounds, default=-1) for t in taken.values()), default=-1) + 1
    return "no side is left"
